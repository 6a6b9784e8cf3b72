package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/shlex"
	"github.com/peterh/liner"
	"github.com/spf13/cobra"
)

// tourStep is a command of the tour with what it shows.
type tourStep struct{ text, command string }

func tour() []tourStep {
	return []tourStep{
		{"Three nodes run in this process and form one Raft cluster:", "nodes"},
		{"Any node takes a write; this one goes to node 1:", "on 1 put greeting hello"},
		{"Any node answers a read, and sees every write that was acknowledged before:", "on 3 get greeting"},
		{"A batch is written as a whole:", "batch 'put user/1 Ada' 'put user/2 Grace'"},
		{"Keys are in order:", "scan --prefix user/"},
		{"Kill the leader. The two others elect a new one:", "kill leader"},
		{"Nothing that was acknowledged is lost:", "on leader get greeting"},
		{"Restart what was killed; it catches up:", "restart"},
	}
}

func (s *shell) takeTour(ctx context.Context) error {
	for _, step := range tour() {
		fmt.Fprintf(s.outer.stdout, "%s\n> %s\n", step.text, step.command)
		if err := s.run(ctx, step.command); err != nil {
			return err
		}
		fmt.Fprintln(s.outer.stdout)
	}
	fmt.Fprintf(s.outer.stdout, `Other programs can use this cluster, too: export SKIFF_NODES=%s
Now it is yours. 'help' lists the commands, TAB completes, 'quit' or Ctrl-D leaves.
`, s.current.Address())
	return nil
}

// converse gives the tour, and then runs what the user types on a terminal.
func (s *shell) converse(ctx context.Context) error {
	if err := s.takeTour(ctx); err != nil {
		return err
	}
	terminal := liner.NewLiner()
	defer func() { _ = terminal.Close() }() // the terminal may be gone
	terminal.SetCtrlCAborts(true)
	terminal.SetTabCompletionStyle(liner.TabPrints)
	terminal.SetCompleter(s.completeLine)
	for {
		line, err := prompt(ctx, terminal, fmt.Sprintf("skiff %d> ", s.current.number))
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			continue
		case errors.Is(err, io.EOF):
			fmt.Fprintln(s.outer.stdout)
			return nil
		case err != nil:
			return err
		}
		terminal.AppendHistory(line)
		err = s.run(ctx, line)
		switch {
		case errors.Is(err, errQuit):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		report(s.outer.stderr, err, false)
	}
}

// prompt reads a line, unless ctx ends first.
func prompt(ctx context.Context, terminal *liner.State, text string) (line string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		line, err = terminal.Prompt(text)
	}()
	select {
	case <-done:
		return line, err
	case <-ctx.Done():
		return "", ctx.Err() // the process ends soon
	}
}

// completeLine returns what the line may become.
func (s *shell) completeLine(line string) []string {
	words, err := shlex.Split(line)
	if err != nil {
		return nil
	}
	if len(words) == 0 || strings.HasSuffix(line, " ") {
		words = append(words, "")
	}
	begun := words[len(words)-1]
	var lines []string
	for _, candidate := range s.completeWords(words) {
		if strings.HasPrefix(candidate, begun) {
			lines = append(lines, strings.TrimSuffix(line, begun)+candidate+" ")
		}
	}
	return lines
}

// completeWords returns what the last of words may become.
func (s *shell) completeWords(words []string) []string {
	var out bytes.Buffer
	root := s.newRootCmd()
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetArgs(append([]string{cobra.ShellCompNoDescRequestCmd}, words...))
	if root.Execute() != nil {
		return nil
	}
	candidates := strings.Split(out.String(), "\n")
	for i, c := range candidates {
		if strings.HasPrefix(c, ":") { // the directive ends the list
			return candidates[:i]
		}
	}
	return nil
}
