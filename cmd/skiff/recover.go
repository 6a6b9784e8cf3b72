package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newRecoverCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover DIR",
		Short: "Make a cluster of one from a directory, when a majority is lost for ever",
		Long: `Make a new cluster from the data directory of a node that is not running, with that node
as its only member. This is for when a majority of the nodes is lost for ever. As long as
enough of them can be brought back, start those instead: this gives up promises.

` + recoverWords + `

Of several directories that are left, recover the one whose log ends with the highest term,
and among those the one whose log goes furthest. 'skiff check' tells; where the log is empty,
the applied entry counts.

The directory is read and verified before anything is changed; one that is damaged, in use,
or has never been a member's is refused. If the command is interrupted, no node starts in
the directory until the same command has been run again and has completed. Then start the
node as before, alone. After that, others can join it.`,
		Example: `  cp -a data/n2 data/n2.copy
  skiff recover data/n2 --as-single
  skiff recover data/n2 --as-single --yes -o json`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	asSingle := cmd.Flags().Bool("as-single", false, "make a cluster of this node alone")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := outputFormat(cmd, "table", "json", "jsonl")
		if err != nil {
			return err
		}
		if !*asSingle {
			return usagef("recover needs --as-single: to make a cluster of one node is the only way there is yet")
		}
		if !*yes {
			fmt.Fprintf(e.stderr, "This makes a new cluster of %s alone, and there is no way back.\n\n%s\n\n", args[0], recoverWords)
			if err := confirm(cmd.Context(), e); err != nil {
				return err
			}
		}
		report, err := skiff.Recover(cmd.Context(), args[0])
		switch {
		case errors.Is(err, skiff.ErrMismatch):
			return &usageError{err}
		case err != nil:
			return err
		case format != "table":
			return printJSON(e.stdout, report)
		}
		fmt.Fprintln(e.stderr, "Now start the node as before, alone. Others can join it, with empty directories and --join only.")
		return printRecoverTable(e.stdout, report)
	}
	return cmd
}

// recoverWords are what somebody has to know before.
const recoverWords = `  LOST FOR EVER is every write that was acknowledged by other nodes and never came to this
  directory.

  UNACKNOWLEDGED WRITES MAY APPEAR: all that stands in the log of this directory is taken for
  agreed, also writes that had failed. Which of them did is not known any more.

  NEVER START ANOTHER NODE OF THE OLD CLUSTER AGAIN with its directory. It cannot connect with
  the new cluster, but several of them can go on as the old one, with other data. They can
  come back only by joining the new cluster with empty directories. Do not give two emptied
  ones each other as --peer: they would form a third cluster.

  MAKE A COPY of the directory first, while the node is down.`

// confirm returns nil if the user says yes.
func confirm(ctx context.Context, e *env) error {
	fmt.Fprint(e.stderr, `Type "yes" to go on: `)
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(e.stdin).ReadString('\n')
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		switch said := strings.TrimSpace(a.line); {
		case said == "yes":
			return nil
		case said == "" && errors.Is(a.err, io.EOF):
			return usagef("nobody answers on standard input; nothing was changed. --yes does not ask")
		case a.err != nil && !errors.Is(a.err, io.EOF):
			return a.err
		}
		return errors.New("not confirmed; nothing was changed")
	case <-ctx.Done():
		return ctx.Err() // the process ends soon
	}
}

func printRecoverTable(w io.Writer, r skiff.RecoverReport) error {
	old := r.OldClusterID
	if old == "" {
		old = "-"
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		name  string
		value any
	}{
		{"DIRECTORY", r.Dir}, {"ADDRESS", r.Address},
		{"OLD MEMBERS", strings.Join(r.OldMembers, " ")}, {"OLD CLUSTER", old}, {"CLUSTER", r.ClusterID},
		{"LAST ENTRY", r.LastIndex}, {"LAST TERM", r.LastTerm},
		{"APPLIED BEFORE", r.AppliedIndex}, {"PERHAPS UNACKNOWLEDGED", r.Unapplied},
	} {
		fmt.Fprintf(t, "%s\t%v\n", row.name, row.value)
	}
	return t.Flush()
}
