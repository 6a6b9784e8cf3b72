package skiff

import (
	"context"
	"errors"
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
			p := newLeaderPipeline(inner, leaderChecks{func(uint64) error { return nil }, func(<-chan struct{}, uint64) error { return nil }, func(*raft.AppendEntriesRequest) {}}, func() time.Duration { return 0 })
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

// answeredPipeline has one answer.
type answeredPipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	closed  chan struct{}
	once    sync.Once
}

func (p *answeredPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *answeredPipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

type appendAnswer struct {
	raft.AppendFuture
	request  *raft.AppendEntriesRequest
	response *raft.AppendEntriesResponse
}

func (a appendAnswer) Request() *raft.AppendEntriesRequest   { return a.request }
func (a appendAnswer) Response() *raft.AppendEntriesResponse { return a.response }

// That a follower has an entry is handed on when this node has it. If it never will, the
// pipeline ends; and one that is closed waits for nothing.
func TestAnAnswerIsHeldBack(t *testing.T) {
	stored, closed := errors.New("stored"), errors.New("closed")
	for _, test := range []struct {
		name    string
		outcome error // of waiting
		comes   bool
	}{
		{"the disk has it", nil, true},
		{"the disk has failed", stored, false},
		{"the pipeline is closed", closed, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				inner := &answeredPipeline{answers: make(chan raft.AppendFuture, 1), closed: make(chan struct{})}
				inner.answers <- appendAnswer{
					request:  &raft.AppendEntriesRequest{Term: 1, Entries: []*raft.Log{{Index: 7}, {Index: 8}}},
					response: &raft.AppendEntriesResponse{Term: 1, Success: true},
				}
				disk := make(chan error)
				p := newLeaderPipeline(inner, leaderChecks{recordCopy: func(*raft.AppendEntriesRequest) {}, awaitStored: func(ended <-chan struct{}, index uint64) error {
					if index != 8 {
						t.Errorf("it waits for entry %d", index)
					}
					select {
					case err := <-disk:
						return err
					case <-ended:
						return closed
					}
				}}, nil)
				ended := make(chan struct{})
				go func() { defer close(ended); p.relay() }()
				synctest.Wait()
				select {
				case <-p.Consumer():
					t.Error("it is not held back")
				default:
				}
				if test.outcome == closed {
					_ = p.Close()
				} else {
					disk <- test.outcome
				}
				synctest.Wait()
				select {
				case <-p.Consumer():
					if !test.comes {
						t.Error("it is handed on")
					}
					_ = p.Close()
				default:
					if test.comes {
						t.Error("it is not handed on")
					}
				}
				<-ended
				<-inner.closed
			})
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
	bubble(t, func(t *testing.T) {
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
