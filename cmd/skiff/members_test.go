package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// lines are what a node that a serve command runs says, but for its log.
func (s *serving) lines() <-chan string {
	lines := make(chan string, 100)
	go func() { // until it has ended
		for s.log.Scan() {
			if line := s.log.Text(); !strings.HasPrefix(line, "time=") {
				lines <- line
			}
		}
	}()
	return lines
}

func wantLine(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	for {
		select {
		case line := <-lines:
			if line == want {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("never said %q", want)
		}
	}
}

// A node is taken in, made the leader, kept from leading, and removed.
func TestMembership(t *testing.T) {
	t.Parallel()
	addresses, err := freeAddresses(3)
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := addresses[0], addresses[1], addresses[2]
	startNode(t, first, skiff.Options{InMemory: true})
	startNode(t, second, skiff.Options{InMemory: true, Join: []string{first}})
	dir := filepath.Join(t.TempDir(), "third")
	s := startServe(t, third, "--dir", dir, "--standby")
	lines := s.lines()
	wantLine(t, lines, "waiting "+third)
	c := cliOn(first)
	c.ok(t, "join", third, "--nonvoter")
	voters := func() string { return c.ok(t, "peers") }
	if got := voters(); strings.Count(got, "nonvoter") == 0 {
		t.Errorf("peers:\n%s", got)
	}
	c.ok(t, "join", third)
	c.ok(t, "join", second) // it may still be on the way
	if got := voters(); strings.Contains(got, "nonvoter") || strings.Count(got, "voter") != 3 {
		t.Errorf("peers:\n%s", got)
	}
	c.ok(t, "put", "k", "v")
	c.ok(t, "wait", third)
	if got := cliOn(third).ok(t, "get", "k", "--consistency", "stale"); got != "v" {
		t.Errorf("got %q", got)
	}
	c.ok(t, "transfer", third)
	if got := strings.TrimSpace(c.ok(t, "leader")); got != third {
		t.Errorf("%s leads", got)
	}
	c.ok(t, "weaken", third, "--for", "1h")
	if got := strings.TrimSpace(c.ok(t, "leader")); got == third {
		t.Errorf("%s leads, and is weakened", got)
	}
	if got := c.ok(t, "stats", "--node", third); !strings.Contains(got, "weakened") {
		t.Errorf("stats:\n%s", got)
	}
	c.ok(t, "weaken", third, "--for", "0s")

	cliOn(third).ok(t, "leave", third)
	wantLine(t, lines, "removed "+third)
	if code := s.awaitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := (&cli{}).run(t, "serve", third, "--dir", dir); r.code != 1 || !strings.Contains(r.stderr, "removed") {
		t.Errorf("started again: %+v", r)
	}
	for _, test := range []struct {
		args []string
		code int
	}{
		{[]string{"leave", third}, 3},
		{[]string{"join", third}, 6}, // nothing runs there
		{[]string{"join", "nonsense"}, 2},
		{[]string{"leave", second, "--force"}, 2}, // and nobody says yes
	} {
		if r := c.run(t, test.args...); r.code != test.code {
			t.Errorf("%v: %+v, want code %d", test.args, r, test.code)
		}
	}
	c.ok(t, "leave", second, "--force", "--yes")
	for _, args := range [][]string{{"leave", first}, {"weaken", first}, {"transfer"}} {
		if r := c.run(t, args...); r.code != 5 {
			t.Errorf("%v of the only voter: %+v", args, r)
		}
	}
}

// What happens is printed as JSON, one event a line.
func TestServeEvents(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	e := &env{stdout: &out, stderr: &out}
	node, err := skiff.New("/ip4/127.0.0.1/tcp/9490", skiff.Options{Dir: filepath.Join(t.TempDir(), "missing", "\x00")})
	if err != nil {
		t.Fatal(err)
	}
	events := node.Subscribe(eventBuffer)
	if err := node.Start(t.Context()); err == nil {
		t.Fatal("a directory without a possible name")
	}
	printEvents(e, events)
	var kinds []string
	for line := range strings.Lines(out.String()) {
		var event struct{ Event, Node, Time string }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, event.Time); err != nil || event.Node != node.Address() {
			t.Errorf("%q", line)
		}
		kinds = append(kinds, event.Event)
	}
	if len(kinds) == 0 || kinds[len(kinds)-1] != "stopped" {
		t.Errorf("events: %q", kinds)
	}

	out.Reset()
	for _, event := range []skiff.Event{skiff.Warning{Err: errors.New("disk on fire")}, skiff.PeerFailed{Peer: "b", Err: fmt.Errorf("no way")}} {
		if err := printEvent(&out, event); err != nil {
			t.Fatal(err)
		}
	}
	if got := out.String(); !strings.Contains(got, `"Err":"disk on fire"`) || !strings.Contains(got, `"Err":"no way"`) || !strings.Contains(got, `"Event":"peer failed"`) {
		t.Errorf("printed %s", got)
	}
}
