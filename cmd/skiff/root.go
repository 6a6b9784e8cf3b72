package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// run executes one command line and returns its exit code.
func run(ctx context.Context, e *env, args []string) int {
	cmd, err := execute(ctx, e, newRootCmd(e), args)
	asJSON := strings.HasPrefix(cmd.Flag("output").Value.String(), "json")
	report(e.stderr, err, asJSON)
	o := outcomeOf(err)
	if o.kind == "usage" && !asJSON {
		fmt.Fprintf(e.stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return o.code
}

// execute runs the command of root that args name. Whatever goes wrong before
// the command itself is reached is a mistake in usage.
func execute(ctx context.Context, e *env, root *cobra.Command, args []string) (*cobra.Command, error) {
	reached := false
	noteReached(root, &reached)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !reached {
		err = &usageError{err}
	}
	return cmd, err
}

func noteReached(cmd *cobra.Command, reached *bool) {
	for _, c := range cmd.Commands() {
		noteReached(c, reached)
	}
	if runE := cmd.RunE; runE != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*reached = true
			return runE(cmd, args)
		}
	}
}

func newRootCmd(e *env) *cobra.Command {
	root := newBaseCmd(e)
	root.Use = "skiff"
	root.Short = "A replicated goleveldb"
	root.Long = `Skiff is a goleveldb replicated by Raft. Every node is the database: reads and
writes go to any node, and are linearizable by default.

Data goes to standard output, everything else to standard error.

Settings: --node, --timeout, --consistency and --output can also be given as
SKIFF_NODES, SKIFF_TIMEOUT, SKIFF_CONSISTENCY and SKIFF_OUTPUT, or in the JSON file that
--config or SKIFF_CONFIG names: {"nodes": ["/ip4/…"], "timeout": "5s",
"consistency": "lease", "output": "json"}. A flag wins over a variable, a variable
over the file.

JSON: a key or value that is not valid UTF-8 stands in base64 under "key_b64" or
"value_b64" instead of "key" or "value".

` + exitCodesHelp
	root.Example = `  skiff demo
  skiff serve /ip4/127.0.0.1/tcp/9490 --dir data/n0
  export SKIFF_NODES=/ip4/127.0.0.1/tcp/9490
  skiff put greeting hello
  skiff get greeting`
	root.Version = skiff.Version
	root.SetVersionTemplate("skiff {{.Version}}\n")
	top := newTopCmd(e) // not in the demo, which prints what a command puts out when it has ended
	top.GroupID = "Cluster:"
	root.AddCommand(top)
	addGroup(root, "Nodes:", newDemoCmd(e), newServeCmd(e), newCheckCmd(e), newRecoverCmd(e))
	return root
}

// newBaseCmd has the commands that work on a running cluster, and the settings.
func newBaseCmd(e *env) *cobra.Command {
	base := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
	flags := base.PersistentFlags()
	flags.String("config", "", "JSON `file` with settings")
	addChoice(base, flags, &choice{words: []string{"table", "json", "jsonl", "raw", "hex"}},
		"output", "o", "output format (default: what suits the command)")
	base.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		return applySettings(cmd, e.getenv)
	}
	addGroup(base, "Data:", newPutCmd(e), newGetCmd(e), newHasCmd(e), newDelCmd(e), newScanCmd(e),
		newAppendCmd(e), newCasCmd(e), newBatchCmd(e), newTxnCmd(e), newResolveCmd(e), newLoadCmd(e), newDumpCmd(e))
	addGroup(base, "Cluster:", newPeersCmd(e), newStatsCmd(e), newLeaderCmd(e), newChecksumCmd(e), newBenchCmd(e))
	addGroup(base, "Membership:", newJoinCmd(e), newLeaveCmd(e), newTransferCmd(e), newWeakenCmd(e), newWaitCmd(e))
	base.AddCommand(newVersionCmd(e))
	return base
}

// addGroup adds commands that the help lists under a title.
func addGroup(parent *cobra.Command, title string, commands ...*cobra.Command) {
	parent.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range commands {
		c.GroupID = title
	}
	parent.AddCommand(commands...)
}
