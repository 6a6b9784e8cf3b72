package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newPeersCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the members of the cluster",
		Example: `  skiff peers
  skiff peers -o jsonl | jq -r .address`,
		Args: cobra.NoArgs,
	}
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := outputFormat(cmd, "table", "json", "jsonl")
		if err != nil {
			return err
		}
		stats, err := c.clusterStats(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(e.stdout, format, stats.Peers, "ADDRESS\tROLE\tLEADER", func(p skiff.Peer) string {
			return fmt.Sprintf("%s\t%s\t%s", p.Address, role(p), yes(p.Leader))
		})
	}
	return cmd
}

func role(p skiff.Peer) string {
	if p.Voter {
		return "voter"
	}
	return "nonvoter"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func newLeaderCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leader",
		Short: "Print the address of the leader",
		Long:  "Print the address of the leader. The exit code is 5 if none is known.",
		Example: `  skiff leader
  skiff stats --node $(skiff leader)`,
		Args: cobra.NoArgs,
	}
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := outputFormat(cmd, "table", "raw", "json", "jsonl")
		if err != nil {
			return err
		}
		stats, err := c.clusterStats(cmd.Context())
		switch {
		case err != nil:
			return err
		case stats.Leader == "":
			return fmt.Errorf("%w is known to %s", skiff.ErrNoLeader, stats.Address)
		case format == "json" || format == "jsonl":
			return printJSON(e.stdout, struct {
				Leader string `json:"leader"`
				Term   uint64 `json:"term"`
			}{stats.Leader, stats.Term})
		}
		_, err = fmt.Fprintln(e.stdout, stats.Leader)
		return err
	}
	return cmd
}
