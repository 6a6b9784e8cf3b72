package skiff

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline implements raft.Transport.
func (t *raftTransport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	t.endCatchUp(id)
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	idle := func() time.Duration { return t.pulse.betweenAppends(t.acks.age(id)) }
	p := newLeaderPipeline(inner, leaderChecks{
		t.mayLead, t.awaitStored, func(r *raft.AppendEntriesRequest) { t.copies.record(id, r) },
	}, idle)
	t.wg.Go(p.relay)
	return p, nil
}

// leaderPipeline sends requests to a follower one after the other, and hands on the
// answers, which come in the same order.
//
// raft takes no more answers after the first that is not a success (replication.go,
// pipelineDecode), and may still send (pipelineReplicate chooses at random when it has
// both something to send and nobody who takes answers). With the transport's own
// pipeline it then waits for ever for its turn: the follower gets nothing more from this
// leader, and Shutdown has no end. So such an answer also closes the pipeline.
type leaderPipeline struct {
	raft.AppendPipeline
	leaderChecks
	answers chan raft.AppendFuture
	latest  latestAppend

	once   sync.Once
	closed chan struct{}
}

// leaderChecks are what raftTransport has under these names, of one peer.
type leaderChecks struct {
	mayLead     func(term uint64) error
	awaitStored func(ended <-chan struct{}, index uint64) error
	recordCopy  func(*raft.AppendEntriesRequest)
}

func newLeaderPipeline(inner raft.AppendPipeline, checks leaderChecks, idle func() time.Duration) *leaderPipeline {
	return &leaderPipeline{
		AppendPipeline: inner, leaderChecks: checks, latest: latestAppend{idle: idle},
		answers: make(chan raft.AppendFuture), closed: make(chan struct{}),
	}
}

// latestAppend is the latest request of a pipeline. raft sends one each CommitTimeout,
// for the follower to learn what is committed. When there is nothing to learn it would be
// most of what an idle node does.
//
// It is used by the one goroutine that sends.
type latestAppend struct {
	// idle is after how long there is a request all the same, see pulse.
	idle func() time.Duration

	at                 time.Time
	last, term, commit uint64 // the last entry that the follower has with it, and what is committed
}

// tellsNothing tells whether a request has nothing in it which the one before had not,
// and notes it if it has.
func (l *latestAppend) tellsNothing(args *raft.AppendEntriesRequest) bool {
	now := time.Now()
	next := latestAppend{l.idle, now, args.PrevLogEntry, args.Term, args.LeaderCommitIndex}
	if n := len(args.Entries); n > 0 {
		next.last = args.Entries[n-1].Index
	} else if now.Sub(l.at) < l.idle() && next.last == l.last && next.term == l.term && next.commit == l.commit {
		return true
	}
	*l = next
	return false
}

// AppendEntries implements raft.AppendPipeline.
func (p *leaderPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.mayLead(args.Term); err != nil {
		return nil, err
	}
	trim(args)
	if p.latest.tellsNothing(args) {
		return nil, nil // raft looks at the error only (replication.go, pipelineSend)
	}
	return p.AppendPipeline.AppendEntries(args, resp)
}

// Consumer implements raft.AppendPipeline.
func (p *leaderPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *leaderPipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

// relay hands on answers until the pipeline is closed. That of a request that got none
// is not a success either.
func (p *leaderPipeline) relay() {
	for {
		var answer raft.AppendFuture
		select {
		case answer = <-p.AppendPipeline.Consumer():
		case <-p.closed:
			return
		}
		last := !answer.Response().Success || answer.Response().Term > answer.Request().Term
		if !last {
			p.recordCopy(answer.Request())
			if p.awaitEntries(answer.Request()) != nil {
				break // raft must not hear of it
			}
		}
		select {
		case p.answers <- answer:
		case <-p.closed:
			return
		}
		if last {
			break
		}
	}
	_ = p.AppendPipeline.Close() // netPipeline's never fails
}

// awaitEntries waits until this node has what is in a request on its disk.
func (p *leaderPipeline) awaitEntries(r *raft.AppendEntriesRequest) error {
	if len(r.Entries) == 0 {
		return nil
	}
	return p.awaitStored(p.closed, r.Entries[len(r.Entries)-1].Index)
}
