package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

const exitCodesHelp = `Exit codes:
  0  done, or found
  1  error
  2  wrong usage
  3  not found, not a member; of "skiff resolve": the write was not applied
  4  conflict: a condition does not hold, or another write got in between; nothing was
     applied
  5  no leader, or the cluster is unhealthy, or would be
  6  node unreachable
  7  refused: another cluster, protocol version or node than expected
  8  unknown outcome: the write may have been applied; "skiff resolve" tells
"serve" ends with 0 also when the node was removed from its cluster.

With --output json or jsonl, an error is a JSON object on standard error:
  error            the text
  kind             usage, not_found, conflict, no_leader, quorum, unhealthy, unreachable,
                   refused, unknown_outcome, or error
  exit             the exit code
  unknown_outcome  true if a write may have been applied, and otherwise left out
  not_applied      true if a write certainly was not applied, and may be repeated as it
                   is, and otherwise left out
  token            of a write of unknown outcome, for "skiff resolve"`

// outcome is how a command ended.
type outcome struct {
	code int
	kind string
}

func outcomeOf(err error) outcome {
	var usage *usageError
	var option *skiff.OptionError
	switch {
	case err == nil:
		return outcome{0, "ok"}
	case errors.As(err, &usage), errors.As(err, &option):
		return outcome{2, "usage"}
	case errors.Is(err, skiff.ErrUnknownOutcome): // whatever the cause
		return outcome{8, "unknown_outcome"}
	case errors.Is(err, leveldb.ErrNotFound), errors.Is(err, skiff.ErrNotMember):
		return outcome{3, "not_found"}
	case errors.Is(err, skiff.ErrConflict):
		return outcome{4, "conflict"}
	case errors.Is(err, skiff.ErrNoLeader):
		return outcome{5, "no_leader"}
	case errors.Is(err, skiff.ErrQuorum):
		return outcome{5, "quorum"}
	case errors.Is(err, errUnhealthy):
		return outcome{5, "unhealthy"}
	case errors.Is(err, skiff.ErrUnreachable):
		return outcome{6, "unreachable"}
	case errors.Is(err, skiff.ErrRefused):
		return outcome{7, "refused"}
	}
	return outcome{1, "error"}
}

// errUnhealthy says that the nodes of a cluster do not agree as they should.
var errUnhealthy = errors.New("cluster is unhealthy")

// usageError is a mistake in the command line or the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// toldError only carries an outcome: standard output has already told it.
type toldError struct{ error }

func (e *toldError) Unwrap() error { return e.error }

// jsonError is an error as the help describes it.
type jsonError struct {
	Error          string      `json:"error"`
	Kind           string      `json:"kind"`
	Exit           int         `json:"exit"`
	UnknownOutcome bool        `json:"unknown_outcome,omitempty"`
	NotApplied     bool        `json:"not_applied,omitempty"`
	Token          skiff.Token `json:"token,omitempty"`
}

// report prints err for a reader or, asJSON, for a program.
func report(w io.Writer, err error, asJSON bool) {
	var told *toldError
	if err == nil || errors.As(err, &told) {
		return
	}
	o := outcomeOf(err)
	if asJSON {
		unknown := errors.Is(err, skiff.ErrUnknownOutcome)
		_ = json.NewEncoder(w).Encode(jsonError{
			Error: strings.Join(messages(err), "; "), Kind: o.kind, Exit: o.code,
			UnknownOutcome: unknown,
			NotApplied:     errors.Is(err, skiff.ErrNotApplied) && !unknown, // not even if one attempt was not
			Token:          tokenOf(err),
		})
		return
	}
	fmt.Fprintf(w, "skiff: %s\n", strings.Join(messages(err), "\n"))
}

// messages are the lines of an error, without the name of the library in them, and
// the way to learn its outcome.
func messages(err error) []string {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(strings.TrimPrefix(line, "skiff: "), ": skiff: ", ": ")
	}
	if token := tokenOf(err); token != "" && !errors.Is(err, skiff.ErrSessionExpired) {
		lines = append(lines, fmt.Sprintf("'skiff resolve %s' tells what became of it", token))
	}
	return lines
}

// tokenOf returns the token of a write of unknown outcome.
func tokenOf(err error) skiff.Token {
	var e *skiff.Error
	for errors.As(err, &e) {
		if e.Token != "" {
			return e.Token
		}
		err = e.Err
	}
	return ""
}
