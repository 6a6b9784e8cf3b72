package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	node := startNodes(t, 1)[0]
	c := cliOn(node.Address())
	put := func(key string, conditions ...skiff.Condition) func(context.Context, *skiff.DB) error {
		return func(ctx context.Context, db *skiff.DB) error {
			batch := new(leveldb.Batch)
			batch.Put([]byte(key), []byte(lostValue))
			_, err := db.WriteIf(ctx, batch, conditions...)
			return err
		}
	}
	applied := lostAnswer(t, node, put("k"))
	rejected := lostAnswer(t, node, put("k", skiff.IfAbsent([]byte("k"))))
	never := lostRequest(t, node, put("l"))
	version := versionOf(t, c, "k")
	for _, test := range []struct {
		token  skiff.Token
		format string
		want   result
	}{
		{applied, "table", result{"applied " + version + "\n", "", 0}},
		{applied, "json", result{`{"outcome":"applied","version":` + version + "}\n", "", 0}},
		{rejected, "table", result{"rejected\n", "", 4}},
		{rejected, "json", result{`{"outcome":"rejected"}` + "\n", "", 4}},
		{never, "table", result{"not applied\n", "", 3}},
		{never, "raw", result{"not applied\n", "", 3}},
		{never, "jsonl", result{`{"outcome":"not applied"}` + "\n", "", 3}},
	} {
		if got := c.run(t, "resolve", string(test.token), "-o", test.format); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.format, got, test.want)
		}
	}
	// The token that was told not to be applied is used up.
	if err := put("l", skiff.Once(never))(t.Context(), node.DB()); !errors.Is(err, skiff.ErrRejected) {
		t.Errorf("got %v, want ErrRejected", err)
	}
	if r := c.run(t, "has", "l"); r.code != 3 {
		t.Errorf("what was told not to be applied is there: %+v", r)
	}
}

// TestWithoutAnswerNothingIsResolved: what keeps the question from being answered is
// no answer.
func TestWithoutAnswerNothingIsResolved(t *testing.T) {
	t.Parallel()
	c := single(t)
	for token, want := range map[string]string{
		"":                                "malformed token",
		"nonsense":                        "malformed token",
		strings.Repeat("0a", 16) + "-1-1": "the token is of another cluster",
	} {
		r := c.run(t, "resolve", token)
		if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, "rejected") {
			t.Errorf("token %q: %+v, want an error with %q", token, r, want)
		}
	}
	if r := cliOn("/ip4/127.0.0.1/tcp/1").run(t, "resolve", "any"); r.code != 6 || r.stdout != "" {
		t.Errorf("nobody there: %+v", r)
	}
	for _, err := range []error{
		&skiff.Error{Op: "resolve", Kind: skiff.ErrUnknownOutcome},
		&skiff.Error{Op: "resolve", Kind: skiff.ErrUnknownOutcome, Err: skiff.ErrNotApplied},
		&skiff.Error{Op: "resolve", Kind: skiff.ErrNoLeader},
	} {
		var out strings.Builder
		if got := printResolved(&out, "table", 0, err); got != err || out.Len() > 0 {
			t.Errorf("%v: %v, %q", err, got, out.String())
		}
	}
}

// TestUnknownOutcomeIsResolved: a put whose answer is lost names a token, and that
// tells what became of it.
func TestUnknownOutcomeIsResolved(t *testing.T) {
	t.Parallel()
	c := single(t)
	var stdout, stderr strings.Builder
	e := &env{
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
		getenv: func(name string) string { return c.getenv[name] }, open: dialDeaf,
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	code := make(chan int, 1)
	go func() { code <- run(ctx, e, []string{"put", "k", "v", "--timeout", "1m", "-o", "json"}) }()
	for c.run(t, "has", "k").code != 0 { // until it is applied
		if len(code) > 0 {
			t.Fatalf("ended with exit code %d: %s", <-code, stderr.String())
		}
	}
	interrupt()
	if got := <-code; got != 8 {
		t.Errorf("exit code %d, want 8", got)
	}
	var got struct {
		Error, Token   string
		UnknownOutcome bool `json:"unknown_outcome"`
	}
	if err := json.Unmarshal([]byte(stderr.String()), &got); err != nil {
		t.Fatal(err)
	}
	if !got.UnknownOutcome || got.Token == "" || !strings.Contains(got.Error, "skiff resolve "+got.Token) {
		t.Fatalf("%+v", got)
	}
	r := c.run(t, "resolve", got.Token)
	want := result{"applied " + versionOf(t, c, "k") + "\n", "", 0}
	if r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
}

// TestWayToTheOutcome: the error of a write names the command that asks for its
// outcome, unless that is forgotten.
func TestWayToTheOutcome(t *testing.T) {
	const told = "skiff: line 1: load: put: outcome unknown: "
	for cause, want := range map[error]string{
		errors.New("lost"):      told + "lost\n'skiff resolve T1' tells what became of it\n",
		skiff.ErrSessionExpired: told + "session expired\n",
	} {
		err := &skiff.Error{Op: "put", Kind: skiff.ErrUnknownOutcome, Token: "T1", Err: cause}
		var out strings.Builder
		report(&out, fmt.Errorf("line 1: %w", &skiff.Error{Op: "load", Err: err}), false)
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}
