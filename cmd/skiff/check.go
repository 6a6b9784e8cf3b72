package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// errDamaged says that a data directory is damaged; its problems have been told.
var errDamaged = errors.New("data directory is damaged")

func newCheckCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Verify the data directory of a node that is not running",
		Long: `Read everything in a data directory, change nothing, and print whose it is, how far its
state and its log go, and the hash of its content, which is what 'skiff checksum' prints for
a node at that index.

What is wrong goes to standard error, or into "problems" with -o json, each with its file
and the way out. The exit code is 0 if nothing is wrong, 1 otherwise. That includes what the
next start repairs by itself ("repairable"), such as the torn end of a file after a power
loss. Of all else the way out is to wipe the directory and start the node: it rejoins, and
gets the state from the others.

A node cannot start while its directory is checked.`,
		Example: `  skiff check data/n0
  skiff check data/n0 -o json | jq -r '.problems[].file'`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := outputFormat(cmd, "table", "json", "jsonl")
		if err != nil {
			return err
		}
		report, err := skiff.Check(cmd.Context(), args[0])
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, skiff.ErrMismatch):
			return &usageError{err}
		case err != nil:
			return err
		}
		if err := printReport(e, format, report); err != nil {
			return err
		}
		if len(report.Problems) > 0 {
			return &toldError{errDamaged}
		}
		return nil
	}
	return cmd
}

func printReport(e *env, format string, r skiff.CheckReport) error {
	if format != "table" {
		return printJSON(e.stdout, r)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(e.stderr, "skiff: %s\n", p)
	}
	return printReportTable(e.stdout, r)
}

func printReportTable(w io.Writer, r skiff.CheckReport) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	log := "empty"
	if r.LogLast > 0 {
		log = fmt.Sprintf("%d to %d of term %d", r.LogFirst, r.LogLast, r.LogLastTerm)
	}
	for _, row := range []struct {
		name  string
		value any
	}{
		{"DIRECTORY", r.Dir}, {"FORMAT", r.Format}, {"ADDRESS", r.Address},
		{"CLUSTER", r.ClusterID}, {"INCARNATION", r.Incarnation}, {"LOG STORE", r.LogStore},
		{"TERM", r.Term}, {"APPLIED", r.AppliedIndex}, {"APPLIED TERM", r.AppliedTerm},
		{"SNAPSHOT", r.SnapshotIndex}, {"LOG", log},
		{"KEYS", r.Keys}, {"SHA-256", r.Sum}, {"PROBLEMS", len(r.Problems)},
	} {
		value := fmt.Sprint(row.value)
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(t, "%s\t%s\n", row.name, value)
	}
	return t.Flush()
}
