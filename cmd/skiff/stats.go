package main

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newStatsCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print the stats of each node that --node names",
		Long: `Print the stats of each node that --node names, in a column for each. Writes and reads are
those served by the node since it was started, the latencies those of the last minute.`,
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
	if format != "table" {
		return printRows(e.stdout, format, rows, "", nil)
	}
	t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, figure := range statsFigures {
		fmt.Fprint(t, figure.name)
		for _, r := range rows {
			cell := "-"
			if r.Error == "" || figure.always {
				cell = figure.cell(r.Stats)
			}
			fmt.Fprintf(t, "\t%s", cell)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// statsFigures are the lines of the table.
var statsFigures = []struct {
	name   string
	cell   func(skiff.Stats) string
	always bool // of a node that does not answer too
}{
	{"ADDRESS", func(s skiff.Stats) string { return s.Address }, true},
	{"STATE", func(s skiff.Stats) string { return string(s.State) }, true},
	{name: "READY", cell: func(s skiff.Stats) string { return fmt.Sprint(s.Ready) }},
	{name: "TERM", cell: func(s skiff.Stats) string { return fmt.Sprint(s.Term) }},
	{name: "LEADER", cell: func(s skiff.Stats) string { return cmp.Or(s.Leader, "-") }},
	{name: "CLUSTER", cell: func(s skiff.Stats) string { return cmp.Or(s.ClusterID, "-") }},
	{name: "MEMBERS", cell: func(s skiff.Stats) string { return fmt.Sprint(len(s.Peers)) }},
	{name: "LAST", cell: func(s skiff.Stats) string { return fmt.Sprint(s.LastIndex) }},
	{name: "COMMIT", cell: func(s skiff.Stats) string { return fmt.Sprint(s.CommitIndex) }},
	{name: "APPLIED", cell: func(s skiff.Stats) string { return fmt.Sprint(s.AppliedIndex) }},
	{name: "SNAPSHOT", cell: snapshotCell},
	{name: "LOG STORE", cell: func(s skiff.Stats) string { return string(s.LogStore) }},
	{name: "LOG SIZE", cell: func(s skiff.Stats) string { return sizeCell(s.LogSize) }},
	{name: "STATE SIZE", cell: func(s skiff.Stats) string { return sizeCell(s.StateSize) }},
	{name: "WRITES", cell: func(s skiff.Stats) string { return writesCell(s.Writes) }},
	{name: "WRITE LATENCY", cell: func(s skiff.Stats) string { return latencyCell(s.Writes.Latency) }},
	{name: "READS", cell: func(s skiff.Stats) string { return readsCell(s.Reads) }},
	{name: "READ LATENCY", cell: func(s skiff.Stats) string { return latencyCell(s.Reads.Latency) }},
	{name: "CONNECTIONS", cell: func(s skiff.Stats) string { return fmt.Sprint(s.Connections) }},
	{name: "INSTALLS", cell: func(s skiff.Stats) string { return installsCell(s.Installs) }},
	{name: "UPTIME", cell: func(s skiff.Stats) string { return s.Uptime.Round(time.Second).String() }},
	{name: "VERSION", cell: func(s skiff.Stats) string { return s.Version }},
}

func snapshotCell(s skiff.Stats) string {
	if s.SnapshotIndex == 0 {
		return "-"
	}
	return fmt.Sprintf("%d of term %d", s.SnapshotIndex, s.SnapshotTerm)
}

func writesCell(w skiff.WriteStats) string {
	return fmt.Sprintf("%d ok, %d conflicts, %d not applied, %d unknown", w.OK, w.Conflict, w.NotApplied, w.Unknown)
}

func readsCell(r skiff.ReadStats) string {
	total := r.Total()
	return fmt.Sprintf("%d ok, %d failed", total.OK, total.Failed)
}

func latencyCell(l skiff.Latency) string {
	return fmt.Sprintf("p50 %s, p99 %s", timeCell(l.P50), timeCell(l.P99))
}

func installsCell(installs []skiff.Install) string {
	if len(installs) == 0 {
		return "-"
	}
	cells := make([]string, len(installs))
	for i, in := range installs {
		direction := "to"
		if in.Receiving {
			direction = "from"
		}
		cells[i] = fmt.Sprintf("%s %s: %s of %s", direction, in.Peer, sizeCell(in.Bytes), sizeCell(in.Total))
	}
	return strings.Join(cells, ", ")
}
