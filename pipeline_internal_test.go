package skiff

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A follower refuses entries, its disk being full, say, and raft takes no more answers.
// What it still sends does not wait for ever.
func TestARefusalEndsAPipeline(t *testing.T) {
	for _, answer := range []struct {
		name  string
		reply raft.AppendEntriesResponse
	}{
		{"refused", raft.AppendEntriesResponse{Term: 1}},
		{"a newer term", raft.AppendEntriesResponse{Term: 2, Success: true}},
	} {
		t.Run(answer.name, func(t *testing.T) {
			leader, follower := tcpTransport(t), tcpTransport(t)
			var running sync.WaitGroup
			defer running.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			running.Go(func() {
				for {
					select {
					case rpc := <-follower.Consumer():
						reply := answer.reply
						rpc.Respond(&reply, nil)
					case <-ctx.Done():
						return
					}
				}
			})
			inner, err := leader.AppendEntriesPipeline("follower", follower.LocalAddr())
			if err != nil {
				t.Fatal(err)
			}
			p := newLeaderPipeline(inner, func(uint64) error { return nil }, func() time.Duration { return 0 })
			running.Go(p.relay)
			defer p.Close()

			sent := make(chan error, 1)
			running.Go(func() {
				for {
					if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1}, new(raft.AppendEntriesResponse)); err != nil {
						sent <- err
						return
					}
				}
			})
			<-p.Consumer() // and no more
			select {
			case err := <-sent:
				t.Logf("the next one is told: %v", err)
			case <-testTime():
				t.Error("who sends waits for ever")
			}
		})
	}
}

// testTime is enough for what should take a moment.
func testTime() <-chan time.Time { return time.After(20 * time.Second) }

func tcpTransport(t *testing.T) *raft.NetworkTransport {
	t.Helper()
	tr, err := raft.NewTCPTransport("127.0.0.1:0", nil, 1, 10*time.Second, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// An idle leader sends only what tells followers something, but for a sign of life.
func TestAppendsThatTellNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = time.Second
		l := &latestAppend{idle: func() time.Duration { return idle }}
		entry := []*raft.Log{{Index: 8}}
		for i, step := range []struct {
			request raft.AppendEntriesRequest
			after   time.Duration
			nothing bool
		}{
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 7, LeaderCommitIndex: 7}, 0, false}, // the first
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 7, LeaderCommitIndex: 7}, 0, true},
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 7, LeaderCommitIndex: 7, Entries: entry}, 0, false},
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 8, LeaderCommitIndex: 7}, 0, true},
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 8, LeaderCommitIndex: 8}, 0, false}, // it is committed
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 8, LeaderCommitIndex: 8}, idle - 1, true},
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 8, LeaderCommitIndex: 8}, 1, false}, // a sign of life
			{raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 8, LeaderCommitIndex: 8}, 0, true},
			{raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 8, LeaderCommitIndex: 8}, 0, false},
		} {
			time.Sleep(step.after)
			if got := l.tellsNothing(&step.request); got != step.nothing {
				t.Errorf("step %d: %v", i, got)
			}
		}
	})
}
