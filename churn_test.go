package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/faults"
)

// Nodes join, leave, die, lose their disks, come back and hand over to each other, at
// random, while clients work. What they saw must be explainable by one order of
// operations, nothing acknowledged is lost, and in the end all members are the same.
func TestLinearizableWhileMembersComeAndGo(t *testing.T) {
	t.Parallel()
	seed, d := faults.Seed(), faults.Duration(8*time.Second)
	defer faults.TellRepeat(t, seed, d)
	ch := newChurn(t, seed)
	defer ch.tell()
	for end := time.Now().Add(d); time.Now().Before(end) && !t.Failed(); {
		ch.work(25)
	}
	t.Logf("steps: %v", ch.count)
	for _, i := range ch.which(ch.down) {
		ch.bringBack(i)
	}
	ch.c.wantMembers(ch.which(ch.votes), ch.which(func(i int) bool { return ch.slots[i].member && !ch.slots[i].voter }))
	ch.c.wantSameState()
}

// churn changes a cluster, one step after the other. It keeps the cluster alive: at
// least three voters run, which are a majority.
type churn struct {
	t      *testing.T
	c      *cluster
	begun  time.Time
	remote *skiff.DB
	rnd    *rand.Rand
	slots  []slot
	steps  []string       // what has happened
	count  map[string]int // how often

	mu      sync.Mutex
	away    map[int]bool // nodes that may run, and are no members
	handles map[*skiff.Node]*skiff.DB
}

// slot is what is known of a node.
type slot struct {
	member, voter bool
	data          bool // it has a directory
	told          bool // the directory says that it is no member any more
}

const (
	churnSlots  = 6
	churnVoters = 3 // at least, and running
)

func newChurn(t *testing.T, seed uint64) *churn {
	c := newCluster(t, 3, func(o *skiff.Options) {
		// Who was away has missed more than is in the others' logs.
		o.SnapshotThreshold, o.SnapshotInterval, o.TrailingLogs = 64, 500*time.Millisecond, 64
		if seed%2 == 1 {
			o.LogStore = skiff.LogStoreWAL
		}
	})
	ch := &churn{
		t: t, c: c, begun: time.Now(), remote: dialCluster(c),
		rnd: rand.New(rand.NewPCG(seed, 0)), slots: make([]slot, churnSlots), count: map[string]int{},
		away: map[int]bool{}, handles: map[*skiff.Node]*skiff.DB{},
	}
	for i := range ch.slots {
		if i < c.founders {
			ch.slots[i] = slot{member: true, voter: true, data: true}
		} else {
			c.reserve(standby)
		}
	}
	return ch
}

// work takes so many steps while clients work, and checks what they saw.
func (ch *churn) work(steps int) {
	ch.t.Helper()
	load := faults.Begin(ch.t, ch, faults.LoadOptions{
		Seed: ch.rnd.Uint64(), Workloads: []faults.Workload{faults.Registers, faults.Sets, faults.Counters},
	})
	defer load.Stop()
	for range steps {
		load.Await(5 + ch.rnd.IntN(15))
		ch.step()
	}
	load.Await(20)
	load.End()
}

// Members, DB and Client are what clients may use; together they are faults.Nodes.
func (ch *churn) Members() (members []int) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for i := range ch.slots {
		if !ch.away[i] {
			members = append(members, i)
		}
	}
	return members
}

func (ch *churn) DB(i int) *skiff.DB {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	n := ch.c.node(i)
	if n == nil || ch.away[i] {
		return nil
	}
	if ch.handles[n] == nil {
		ch.handles[n] = n.DB()
	}
	return ch.handles[n]
}

func (ch *churn) Client() *skiff.DB { return ch.remote }

// setAway keeps clients from a node that is no member, or lets them use it.
func (ch *churn) setAway(node int, away bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.away[node] = away
}

// step makes one of the changes that are possible now.
func (ch *churn) step() {
	ch.t.Helper()
	steps := []struct {
		name string
		try  func() bool
	}{
		{"join", ch.join},
		{"join by itself", ch.joinByItself},
		{"join as a nonvoter", ch.joinAsNonvoter},
		{"promote", ch.promote},
		{"leave", ch.leave},
		{"leave", ch.leave},
		{"stop", ch.stop},
		{"kill", ch.kill},
		{"start", func() bool { return ch.start(false) }},
		{"wipe and start", func() bool { return ch.start(true) }},
		{"weaken", ch.weaken},
		{"transfer", ch.transfer},
	}
	for _, i := range ch.rnd.Perm(len(steps)) {
		ch.note("%s", steps[i].name)
		if steps[i].try() {
			ch.count[steps[i].name]++
			return
		}
		ch.steps = ch.steps[:len(ch.steps)-1]
	}
}

// note remembers what is about to happen.
func (ch *churn) note(format string, args ...any) {
	ch.steps = append(ch.steps, fmt.Sprintf("%v: ", time.Since(ch.begun).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// tell gives a failed test its story.
func (ch *churn) tell() {
	if ch.t.Failed() {
		ch.t.Log(strings.Join(ch.steps, "\n"))
	}
}

// which lists the slots that are so.
func (ch *churn) which(is func(i int) bool) (all []int) {
	for i := range ch.slots {
		if is(i) {
			all = append(all, i)
		}
	}
	return all
}

// pick chooses one of the slots that are so, -1 if there is none.
func (ch *churn) pick(is func(i int) bool) int {
	all := ch.which(is)
	if len(all) == 0 {
		return -1
	}
	return all[ch.rnd.IntN(len(all))]
}

func (ch *churn) votes(i int) bool  { return ch.slots[i].voter }
func (ch *churn) runs(i int) bool   { return ch.slots[i].member && ch.c.node(i) != nil }
func (ch *churn) down(i int) bool   { return ch.slots[i].member && ch.c.node(i) == nil }
func (ch *churn) absent(i int) bool { return !ch.slots[i].member }

// spare tells whether the cluster can do without so many of the voters that run, while
// it counts so many voters less.
func (ch *churn) spare(running, counted int) bool {
	alive := len(ch.which(func(i int) bool { return ch.votes(i) && ch.runs(i) })) - running
	return alive >= churnVoters && alive > (len(ch.which(ch.votes))-counted)/2
}

// mayLose tells whether a member may stop running.
func (ch *churn) mayLose(i int) bool {
	return ch.runs(i) && (!ch.votes(i) || ch.spare(1, 0))
}

// change asks for a change through members, or a client, until it is made. Meanwhile
// something else may happen that does not hinder it.
func (ch *churn) change(what string, do func(skiff.Cluster) error) {
	ch.t.Helper()
	disturbed := make(chan struct{})
	disturb := ch.disturbance()
	go func() { defer close(disturbed); disturb() }()
	defer func() { <-disturbed }()
	for try := 0; ; try++ {
		through := ch.through()
		err := do(through)
		switch {
		case err == nil, try > 0 && errors.Is(err, skiff.ErrNotMember): // it was made the first time
			return
		case errors.Is(err, skiff.ErrNotRunning), errors.Is(err, skiff.ErrRemoved): // whom it was asked of
		default:
			ch.t.Fatalf("%s: %v", what, err)
		}
	}
}

// through is whom to ask for changes.
func (ch *churn) through() skiff.Cluster {
	if ch.rnd.IntN(churnSlots) == 0 {
		return ch.remote.Cluster()
	}
	return ch.c.node(ch.pick(ch.runs)).DB().Cluster()
}

// disturbance is what happens while the membership is being changed: mostly nothing.
func (ch *churn) disturbance() func() {
	if ch.rnd.IntN(3) > 0 {
		return func() {}
	}
	n := ch.c.node(ch.pick(ch.runs))
	return func() {
		_ = n.TransferLeadership(testContext(ch.t), "") // it may be too late, or too early
	}
}

// settle returns when a node has a vote that counts: it has everything from before its
// admission, because it has something from after that. The first time that may have
// come with a state, which is there before raft knows; the second time in an entry.
func (ch *churn) settle(i int) {
	ch.t.Helper()
	n := ch.c.node(i)
	for range 2 {
		if err := n.DB().Put([]byte("settled"), nil, nil); err != nil {
			ch.t.Fatalf("node %d: %v", i, err)
		}
		if err := n.ReadConsensus(testContext(ch.t)); err != nil {
			ch.t.Fatalf("node %d: %v", i, err)
		}
	}
	ch.setAway(i, false)
}

// begin starts a node that is no member, with nothing, or with what it has if that
// says so.
func (ch *churn) begin(i int, change func(*skiff.Options)) {
	ch.t.Helper()
	s := &ch.slots[i]
	if s.data && (!s.told || ch.rnd.IntN(2) == 0) {
		ch.c.wipe(i)
	}
	ch.note("  %s", ch.c.addrs[i])
	ch.setAway(i, true)
	ch.c.joiners[i] = change
	ch.c.start(i)
}

// joined is called when a node has become a member.
func (ch *churn) joined(i int, voter bool) {
	ch.slots[i] = slot{member: true, voter: voter, data: true}
	ch.settle(i)
}

// join takes in a node that waits.
func (ch *churn) join() bool {
	i := ch.pick(ch.absent)
	if i < 0 {
		return false
	}
	ch.begin(i, standby)
	ch.ask("join", i)
	ch.joined(i, true)
	return true
}

func (ch *churn) ask(what string, i int, options ...skiff.JoinOption) {
	ch.t.Helper()
	ch.change(what, func(c skiff.Cluster) error { return c.Join(testContext(ch.t), ch.c.addrs[i], options...) })
}

// joinByItself starts a node that asks, of members that may be down.
func (ch *churn) joinByItself() bool {
	i := ch.pick(func(i int) bool { return ch.absent(i) && !ch.slots[i].told })
	if i < 0 {
		return false
	}
	ch.begin(i, func(o *skiff.Options) { o.Join = ch.contacts(i) })
	if err := ch.c.node(i).WaitReady(testContext(ch.t)); err != nil {
		ch.t.Fatalf("node %d: %v", i, err)
	}
	ch.ask("join again", i) // which returns when it has got what it asks for itself
	ch.joined(i, true)
	return true
}

// contacts are a few members other than self, of which one runs.
func (ch *churn) contacts(self int) []string {
	runs := ch.pick(ch.runs)
	all := []string{ch.c.addrs[runs]}
	if other := ch.pick(func(i int) bool { return ch.slots[i].member && i != self && i != runs }); other >= 0 {
		all = append(all, ch.c.addrs[other])
	}
	return all
}

func (ch *churn) joinAsNonvoter() bool {
	i := ch.pick(ch.absent)
	if i < 0 {
		return false
	}
	ch.begin(i, standby)
	ch.ask("join as a nonvoter", i, skiff.AsNonvoter)
	ch.joined(i, false)
	return true
}

func (ch *churn) promote() bool {
	i := ch.pick(func(i int) bool { return ch.runs(i) && !ch.votes(i) })
	if i < 0 {
		return false
	}
	ch.note("  %s", ch.c.addrs[i])
	ch.ask("promote", i)
	ch.slots[i].voter = true
	return true
}

// leave removes a member: a leader or a follower, through itself or another one, or
// one that is down. That one may come back, to be told.
func (ch *churn) leave() bool {
	i := ch.pick(func(i int) bool {
		return ch.down(i) && (!ch.votes(i) || ch.spare(0, 1)) || ch.runs(i) && (!ch.votes(i) || ch.spare(1, 1))
	})
	if i < 0 {
		return false
	}
	away := ch.down(i)
	ch.note("  %s, away: %t", ch.c.addrs[i], away)
	ch.change("leave", func(c skiff.Cluster) error { return c.Leave(testContext(ch.t), ch.c.addrs[i]) })
	ch.setAway(i, true)
	ch.slots[i] = slot{data: true, told: !away || ch.rnd.IntN(2) == 0}
	if !ch.slots[i].told {
		return true
	}
	if away {
		ch.c.start(i)
	}
	ch.c.wantRemoved(i)
	ch.c.stop(i)
	return true
}

func (ch *churn) stop() bool { return ch.lose(ch.c.stop) }
func (ch *churn) kill() bool { return ch.lose(ch.c.kill) }

func (ch *churn) lose(how func(i int)) bool {
	i := ch.pick(ch.mayLose)
	if i < 0 {
		return false
	}
	ch.note("  %s", ch.c.addrs[i])
	how(i)
	return true
}

// start brings a member back, with its directory or without.
func (ch *churn) start(wiped bool) bool {
	i := ch.pick(ch.down)
	if i < 0 {
		return false
	}
	if wiped {
		ch.c.wipe(i)
		nonvoter := !ch.votes(i)
		ch.c.joiners[i] = func(o *skiff.Options) { o.Join, o.Nonvoter = ch.contacts(i), nonvoter }
		ch.setAway(i, true)
	}
	ch.bringBack(i)
	return true
}

// bringBack starts a member.
func (ch *churn) bringBack(i int) {
	ch.t.Helper()
	ch.note("  %s", ch.c.addrs[i])
	ch.c.start(i)
	if err := ch.c.node(i).WaitReady(testContext(ch.t)); err != nil {
		ch.t.Fatalf("node %d: %v", i, err)
	}
	ch.settle(i)
}

func (ch *churn) weaken() bool {
	i := ch.pick(func(i int) bool { return ch.runs(i) && ch.votes(i) })
	ch.note("  %s", ch.c.addrs[i])
	d := time.Duration(ch.rnd.Int64N(int64(3 * ch.c.options.HeartbeatTimeout)))
	if err := ch.through().Weaken(testContext(ch.t), ch.c.addrs[i], d); err != nil {
		ch.note("  %v", err)
	}
	return true
}

// transfer asks for another leader, which may be weakened, and refuse.
func (ch *churn) transfer() bool {
	to := ""
	if ch.rnd.IntN(2) == 0 {
		to = ch.c.addrs[ch.pick(func(i int) bool { return ch.runs(i) && ch.votes(i) })]
	}
	ctx, cancel := context.WithTimeout(testContext(ch.t), 10*ch.c.options.HeartbeatTimeout)
	defer cancel()
	if err := ch.through().TransferLeadership(ctx, to); err != nil {
		ch.note("  %v", err)
	}
	return true
}
