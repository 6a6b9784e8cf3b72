package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/shlex"
	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// errQuit says that the user wants to leave.
var errQuit = errors.New("quit")

// shell runs command lines on the nodes of a demo: the commands of skiff on the
// current node, and some of its own.
type shell struct {
	outer   *env
	cluster *demoCluster
	current *demoNode
	inner   *env // of the commands
	out     bytes.Buffer
}

func newShell(e *env, c *demoCluster) *shell {
	s := &shell{outer: e, cluster: c, current: c.nodes[0]}
	s.inner = &env{stdin: strings.NewReader(""), stdout: &s.out, stderr: e.stderr, getenv: s.getenv, open: s.open}
	return s
}

// getenv makes the current node the one that commands work on.
func (s *shell) getenv(name string) string {
	if name == "SKIFF_NODES" {
		return s.current.Address()
	}
	return ""
}

// open is an opener that gives the handle of an embedded node.
func (s *shell) open(ctx context.Context, nodes []string, o skiff.DialOptions) (*skiff.DB, func(), error) {
	for _, address := range nodes {
		n := s.cluster.at(address)
		if n == nil {
			return dial(ctx, nodes, o)
		}
		if !n.killed {
			db := n.DB()
			return db, func() { _ = db.Close() }, nil
		}
	}
	return nil, nil, fmt.Errorf("%w: %s is killed; use another node, or restart it", skiff.ErrUnreachable, strings.Join(nodes, ", "))
}

// run executes a line and prints what it puts out.
func (s *shell) run(ctx context.Context, line string) error {
	words, err := shlex.Split(line)
	if err != nil {
		return &usageError{err}
	}
	if len(words) > 0 && words[0] == "skiff" {
		words = words[1:] // as the examples in the help have it
	}
	if len(words) == 0 {
		return nil
	}
	s.out.Reset()
	err = s.execute(ctx, words)
	if s.out.Len() > 0 && !bytes.HasSuffix(s.out.Bytes(), []byte("\n")) {
		s.out.WriteByte('\n')
	}
	_, writeErr := s.outer.stdout.Write(s.out.Bytes())
	return errors.Join(err, writeErr)
}

func (s *shell) execute(ctx context.Context, words []string) error {
	_, err := execute(ctx, s.inner, s.newRootCmd(), words)
	return err
}

func (s *shell) newRootCmd() *cobra.Command {
	root := newBaseCmd(s.inner)
	root.Use = "skiff"
	root.Long = "The commands of skiff, on the current node, and some on the demo itself."
	root.CompletionOptions.DisableDefaultCmd = true
	addGroup(root, "Demo:",
		s.newNodesCmd(), s.newUseCmd(), s.newOnCmd(), s.newKillCmd(), s.newRestartCmd(), s.newExpectCmd(), s.newFailsCmd(), newQuitCmd())
	return root
}
