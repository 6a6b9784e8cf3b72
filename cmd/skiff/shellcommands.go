package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func (s *shell) newNodesCmd() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the nodes of the demo", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, err := outputFormat(cmd, "table", "json", "jsonl")
			if err != nil {
				return err
			}
			return s.printNodes(format)
		},
	}
}

// nodeRow is what the demo tells of a node.
type nodeRow struct {
	Number  int         `json:"number"`
	Address string      `json:"address"`
	State   skiff.State `json:"state"`
	Current bool        `json:"current"`
}

func (s *shell) printNodes(format string) error {
	var rows []nodeRow
	for _, n := range s.cluster.nodes {
		rows = append(rows, nodeRow{n.number, n.Address(), n.State(), n == s.current})
	}
	return printRows(s.inner.stdout, format, rows, "NODE\tADDRESS\tSTATE\tCURRENT", func(r nodeRow) string {
		return fmt.Sprintf("%d\t%s\t%s\t%s", r.Number, r.Address, r.State, yes(r.Current))
	})
}

func (s *shell) newUseCmd() *cobra.Command {
	return &cobra.Command{
		Use: "use NODE", Short: "Let the following commands work on a node: 1, 2, 3, leader or follower",
		Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := s.find(cmd.Context(), args[0])
			if err == nil {
				s.current = n
			}
			return err
		},
	}
}

// find waits a moment for a leader if it needs one.
func (s *shell) find(ctx context.Context, name string) (*demoNode, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.cluster.find(ctx, name)
}

func (s *shell) newOnCmd() *cobra.Command {
	return s.newPrefixCmd("on NODE COMMAND...", "Run one command on a node", s.completeNode,
		func(ctx context.Context, node string, command []string) error {
			n, err := s.find(ctx, node)
			if err != nil {
				return err
			}
			defer func(before *demoNode) { s.current = before }(s.current)
			s.current = n
			return s.execute(ctx, command)
		})
}

func (s *shell) newExpectCmd() *cobra.Command {
	return s.newPrefixCmd("expect OUTPUT COMMAND...", `Fail unless a command puts out this, with \n and \t for newline and tab`, nil,
		func(ctx context.Context, output string, command []string) error {
			want, err := unescape([]byte(output))
			if err != nil {
				return &usageError{err}
			}
			before := s.out.Len()
			if err := s.execute(ctx, command); err != nil {
				return err
			}
			got := bytes.TrimSuffix(s.out.Bytes()[before:], []byte("\n"))
			if !bytes.Equal(got, want) {
				return fmt.Errorf("got %q, expected %q", got, want)
			}
			return nil
		})
}

func (s *shell) newFailsCmd() *cobra.Command {
	return s.newPrefixCmd("fails CODE COMMAND...", "Fail unless a command fails with this exit code", nil,
		func(ctx context.Context, code string, command []string) error {
			want, err := strconv.Atoi(code)
			if err != nil {
				return usagef("exit code %q is no number", code)
			}
			err = s.execute(ctx, command)
			if got := outcomeOf(err); got.code != want {
				return fmt.Errorf("got exit code %d (%s), expected %d", got.code, got.kind, want)
			}
			return nil
		})
}

// newPrefixCmd makes a command that does something about the command that follows
// its argument.
func (s *shell) newPrefixCmd(use, short string, complete cobra.CompletionFunc, run func(ctx context.Context, arg string, command []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd.Context(), args[0], args[1:])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return s.completeWords(append(args[1:], word)), cobra.ShellCompDirectiveNoFileComp
			}
			if complete == nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return complete(cmd, args, word)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (s *shell) newKillCmd() *cobra.Command {
	return &cobra.Command{
		Use: "kill NODE", Short: "End a node without warning", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := s.find(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case n.killed:
				return fmt.Errorf("node %d is killed already", n.number)
			}
			if err := n.kill(); err != nil {
				return err
			}
			fmt.Fprintf(s.inner.stdout, "killed node %d\n", n.number)
			return nil
		},
	}
}

func (s *shell) newRestartCmd() *cobra.Command {
	return &cobra.Command{
		Use: "restart [NODE]", Short: "Start a killed node again, or all", Args: cobra.MaximumNArgs(1), ValidArgsFunction: s.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes := s.cluster.nodes
			if len(args) == 1 {
				n, err := s.find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				nodes = []*demoNode{n}
			}
			return s.restart(cmd.Context(), nodes)
		},
	}
}

func (s *shell) restart(ctx context.Context, nodes []*demoNode) error {
	for _, n := range nodes {
		if !n.killed {
			continue
		}
		if err := n.restart(ctx); err != nil {
			return err
		}
		fmt.Fprintf(s.inner.stdout, "restarted node %d\n", n.number)
	}
	return nil
}

func newQuitCmd() *cobra.Command {
	return &cobra.Command{
		Use: "quit", Aliases: []string{"exit"}, Short: "Leave the demo", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errQuit },
	}
}

func (s *shell) completeNode(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.cluster.names(), cobra.ShellCompDirectiveNoFileComp
}
