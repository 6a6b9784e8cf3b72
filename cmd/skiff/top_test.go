package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// Top goes on until it is told to end, which is no error, also when all that it
// looks at goes away meanwhile.
func TestTopGoesOn(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 1)
	ctx, interrupt := context.WithCancel(t.Context())
	stdout, out := io.Pipe()
	stderr, errs := io.Pipe()
	e := &env{stdin: strings.NewReader(""), stdout: out, stderr: errs, getenv: func(string) string { return "" }, open: dial}
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, e, []string{"top", "--node", nodes[0].Address(), "--interval", "1ms", "--timeout", "100ms"})
		out.Close()
		errs.Close()
	}()
	looked, failed := bufio.NewScanner(stdout), bufio.NewScanner(stderr)
	for range 7 { // header, member, an empty line, and so on
		if !looked.Scan() {
			t.Fatal("ends early")
		}
	}
	if !strings.HasPrefix(looked.Text(), "ADDRESS") {
		t.Errorf("line 7 is %q", looked.Text())
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	if err := nodes[0].Stop(ended()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !failed.Scan() || !strings.HasPrefix(failed.Text(), "skiff: list peers on ") {
			t.Fatalf("on standard error: %q", failed.Text())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	interrupt()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}

func TestTopRates(t *testing.T) {
	peer := func(address string, uptime time.Duration, writes, reads uint64) skiff.Peer {
		return skiff.Peer{Address: address, Stats: &skiff.Stats{
			Uptime: uptime, Writes: skiff.WriteStats{OK: writes},
			Reads: skiff.ReadStats{Linearizable: skiff.ReadCounts{OK: reads}, Stale: skiff.ReadCounts{OK: 1}},
		}}
	}
	down := func(address string) skiff.Peer { return skiff.Peer{Address: address} }
	rows := topRows(
		[]skiff.Peer{peer("a", time.Minute, 10, 100), peer("b", time.Minute, 10, 100), down("c"), peer("d", time.Minute, 1, 1)},
		[]skiff.Peer{peer("a", time.Minute+2*time.Second, 30, 105), peer("b", time.Second, 5, 5), peer("c", time.Hour, 1, 1), down("d"), peer("e", time.Hour, 1, 1)},
	)
	for i, want := range [][2]float64{
		{10, 2.5},
		{-1, -1}, // it has started again
		{-1, -1}, // it did not answer before
		{-1, -1}, // it does not answer
		{-1, -1}, // it is new
	} {
		if got := [2]float64{rows[i].WritesPerSecond, rows[i].ReadsPerSecond}; got != want {
			t.Errorf("%s: %v, want %v", rows[i].Address, got, want)
		}
	}
}

// Terminal sequences are for terminals.
func TestTopInPlace(t *testing.T) {
	leader := skiff.Peer{Address: "a", Role: skiff.StateLeader, Connected: true, Stats: &skiff.Stats{}}
	follower := leader
	follower.Address, follower.Role = "b", skiff.StateFollower
	receiving := follower
	receiving.Address, receiving.Stats = "c", &skiff.Stats{Installs: []skiff.Install{{Peer: "a", Receiving: true}}}
	rows := topRows(nil, []skiff.Peer{leader, follower, receiving, {Address: "d"}})

	for _, live := range []bool{true, false} {
		var out strings.Builder
		s := &screen{e: &env{stdout: &out, stderr: &out}, format: "table", live: live}
		for range 2 {
			if err := s.show(rows, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.show(nil, errors.New("nobody there")); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(lastLine(out.String()), "skiff: nobody there") && !live {
			t.Errorf("%q", out.String())
		}
		if got := strings.Contains(out.String(), "\x1b"); got != live {
			t.Errorf("live %v: %q", live, out.String())
		}
		if !live {
			continue
		}
		if got := strings.Count(out.String(), home); got != 3 {
			t.Errorf("%d views", got)
		}
		view := strings.Split(out.String(), "\n")
		for i, colour := range []string{home + bold, green, "b", yellow, red} {
			if !strings.HasPrefix(view[i], colour) {
				t.Errorf("line %d: %q", i, view[i])
			}
		}
	}
	if newScreen(&env{stdout: &strings.Builder{}, getenv: func(string) string { return "" }}, "table").live {
		t.Error("what is no terminal is taken for one")
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return lines[len(lines)-1]
}

func TestCells(t *testing.T) {
	for want, got := range map[string]string{
		"-":        timeCell(-1),
		"0s":       timeCell(0),
		"1µs":      timeCell(800),
		"123µs":    timeCell(123_456 * time.Nanosecond),
		"12.3ms":   timeCell(12_345 * time.Microsecond),
		"2m5s":     timeCell(125_400 * time.Millisecond),
		"12":       numberCell(12),
		"1000 B":   sizeCell(1000),
		"1.5 KiB":  sizeCell(1536),
		"1.0 MiB":  sizeCell(1 << 20),
		"64.0 MiB": sizeCell(64 << 20),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if numberCell(-1)+sizeCell(-1)+rateCell(-1) != "---" {
		t.Error("what is not known")
	}
}
