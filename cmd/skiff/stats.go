package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newStatsCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print the stats of each node that --node names",
		Example: `  skiff stats
  skiff stats --node /ip4/10.0.0.1/tcp/9490,/ip4/10.0.0.2/tcp/9490 -o json
  skiff stats --node $(skiff peers -o jsonl | jq -r .address | paste -sd,)`,
		Args: cobra.NoArgs,
	}
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := outputFormat(cmd, "table", "json", "jsonl")
		if err != nil {
			return err
		}
		if err := c.check(); err != nil {
			return err
		}
		answers := askAll(c.nodes, func(node string) (skiff.Stats, error) {
			return c.nodeStats(cmd.Context(), node)
		})
		if err := printStats(e, format, answers); err != nil {
			return err
		}
		return failures(answers)
	}
	return cmd
}

// statsRow is what is known of one node.
type statsRow struct {
	skiff.Stats
	Error string `json:"error,omitempty"`
}

func printStats(e *env, format string, answers []answer[skiff.Stats]) error {
	rows := make([]statsRow, len(answers))
	for i, a := range answers {
		rows[i] = statsRow{Stats: a.value}
		if a.err != nil {
			rows[i] = statsRow{skiff.Stats{Address: a.address, State: skiff.State(failedState(a.err))}, a.err.Error()}
		}
	}
	return printRows(e.stdout, format, rows,
		"ADDRESS\tSTATE\tTERM\tLEADER\tLAST\tCOMMIT\tAPPLIED\tSNAPSHOT\tSTORE\tUPTIME\tVERSION",
		func(r statsRow) string {
			if r.Error != "" {
				return fmt.Sprintf("%s\t%s", r.Address, r.State)
			}
			return fmt.Sprintf("%s\t%s\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t%v\t%s",
				r.Address, r.State, r.Term, r.Leader, r.LastIndex, r.CommitIndex, r.AppliedIndex, r.SnapshotIndex,
				r.LogStore, r.Uptime.Round(time.Second), r.Version)
		})
}
