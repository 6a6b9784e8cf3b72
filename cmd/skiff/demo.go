package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// maxScriptLine bounds a line of a script.
const maxScriptLine = 1 << 20

func newDemoCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Try three nodes in one process",
		Long: `Start three nodes in this process, take a short tour of them, and prompt for commands:
those of skiff itself, and some that kill and restart nodes ('help' lists them).

With --script, or with standard input that is no terminal, the commands are read from there,
one on each line, quoted as in a shell, # begins a comment. A command that fails is reported
with its line, and the demo ends with its exit code. Scripts check what they do:

  expect 'v' on 2 get k            the output; \n and \t stand for newline and tab
  fails 3 get nosuch               the exit code`,
		Example: `  skiff demo
  skiff demo --script tour.skiff
  printf 'put k v\nkill leader\nexpect v get k\n' | skiff demo`,
		Args: cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "keep the data in this `directory` (default: a temporary one)")
	script := cmd.Flags().String("script", "", "read commands from `file`")
	keepGoing := cmd.Flags().Bool("keep-going", false, "go on after a command of a script has failed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withDemoDir(*dir, func(dir string) error {
			return demo(cmd.Context(), e, dir, *script, *keepGoing)
		})
	}
	return cmd
}

// withDemoDir runs do with dir or, if that is empty, with a directory that is
// removed at the end.
func withDemoDir(dir string, do func(dir string) error) (err error) {
	if dir != "" {
		return do(dir)
	}
	dir, err = os.MkdirTemp("", "skiff-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(dir)
}

func demo(ctx context.Context, e *env, dir, script string, keepGoing bool) (err error) {
	interactive := script == "" && isTerminal(e.stdin) && isTerminal(e.stdout)
	var in io.ReadCloser
	if !interactive {
		if script == "" {
			script = "-"
		}
		if in, err = openInput(ctx, e, script); err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
	}
	cluster, err := startDemoCluster(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.stop()) }()
	s := newShell(e, cluster)
	if interactive {
		return s.converse(ctx)
	}
	return s.runScript(ctx, newLines(inputName(script), in, maxScriptLine), keepGoing)
}

// runScript runs the commands of a script.
func (s *shell) runScript(ctx context.Context, in *lines, keepGoing bool) error {
	var first error
	for first == nil || keepGoing {
		line, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			return first
		case err != nil:
			return err
		}
		err = s.run(ctx, string(line))
		switch {
		case errors.Is(err, errQuit):
			return first
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			fmt.Fprintf(s.outer.stderr, "skiff: %s:%d: %s\n", in.name, in.number, strings.Join(messages(err), "; "))
			if first == nil {
				first = &toldError{err}
			}
		}
	}
	return first
}
