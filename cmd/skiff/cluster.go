package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newPeersCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the members of the cluster, and how they do",
		Long: `List the members of the cluster. The node at hand asks all of them, so that is how they
look from there. A member that does not answer is in the list, and no error.

CONTACT is how long ago the leader and the member have heard of each other. LAG and LAG BYTES
are the log entries, and their bytes, that the leader has and the member lacks. LATENCY is
how long it took to answer. "-" means that it is not known.`,
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
		var peers []skiff.Peer
		err = c.request(cmd.Context(), func(ctx context.Context, db *skiff.DB) (err error) {
			peers, err = db.Cluster().Peers(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if len(peers) == 0 {
			return fmt.Errorf("%w: the node waits to be taken into a cluster", skiff.ErrNotMember)
		}
		defer func() {
			for _, p := range peers {
				if p.Error != "" && format == "table" {
					fmt.Fprintf(e.stderr, "%s: %s\n", p.Address, p.Error)
				}
			}
		}()
		return printRows(e.stdout, format, peers, "ADDRESS\tROLE\tSUFFRAGE\tCONTACT\tLAG\tLAG BYTES\tLATENCY\tVERSION", peerCells)
	}
	return cmd
}

func peerCells(p skiff.Peer) string {
	latency := p.Latency
	if !p.Connected {
		latency = -1
	}
	return strings.Join([]string{
		p.Address, role(p), suffrage(p.Voter), timeCell(p.LastContact), numberCell(p.Lag), sizeCell(p.LagBytes),
		timeCell(latency), cmp.Or(p.Version, "-"),
	}, "\t")
}

// role is what a member does, or what is wrong with it.
func role(p skiff.Peer) string {
	switch {
	case p.Role != "":
		return string(p.Role)
	case p.Connected:
		return "error"
	}
	return "unreachable"
}

func suffrage(voter bool) string {
	if voter {
		return "voter"
	}
	return "nonvoter"
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
