package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func newResolveCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resolve TOKEN",
		Short: "Tell what became of a write whose outcome was unknown",
		Long: `Tell what became of a write that ended with "outcome unknown": the error names TOKEN. One of
these is printed, and it is final:

  applied VERSION    exit code 0
  not applied        exit code 3; it never will be: the write may be repeated
  rejected           exit code 4; a condition did not hold

Any other end says nothing about the write; the command can be repeated, unless the error is
"session expired": then the cluster no longer remembers the write.`,
		Example: `  skiff resolve "$token"
  skiff resolve "$token" -o json | jq .version`,
		Args: cobra.ExactArgs(1),
	}
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := outputFormat(cmd, "table", "raw", "json", "jsonl")
		if err != nil {
			return err
		}
		return c.request(cmd.Context(), func(ctx context.Context, db *skiff.DB) error {
			version, err := db.Resolve(ctx, skiff.Token(args[0]))
			return printResolved(e.stdout, format, version, err)
		})
	}
	return cmd
}

// resolution is what became of a write.
type resolution struct {
	Outcome string `json:"outcome"`
	Version uint64 `json:"version,omitempty"`
}

// printResolved prints the answer of [skiff.DB.Resolve], unless err says that there is
// none. What it returns carries the outcome.
func printResolved(w io.Writer, format string, version uint64, err error) error {
	r := resolution{"applied", version}
	switch {
	case err == nil:
	case errors.Is(err, skiff.ErrUnknownOutcome):
		return err
	case errors.Is(err, skiff.ErrConflict):
		r.Outcome, err = "rejected", &toldError{err}
	case errors.Is(err, skiff.ErrNotApplied):
		r.Outcome, err = "not applied", &toldError{leveldb.ErrNotFound}
	default:
		return err
	}
	if printErr := r.print(w, format); printErr != nil {
		return printErr
	}
	return err
}

func (r resolution) print(w io.Writer, format string) error {
	if format == "json" || format == "jsonl" {
		return printJSON(w, r)
	}
	text := r.Outcome
	if r.Version != 0 {
		text = fmt.Sprintf("%s %d", text, r.Version)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
