package skiff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/wire"
)

// membership is this node's own place in the cluster. It is safe for concurrent
// use.
type membership struct {
	// joining: the node has no place yet, and founds no cluster. Set before raft
	// starts.
	joining bool
	// alone: the node founds a cluster of its own. Set before raft starts.
	alone bool
	// leaving: the node has asked to be removed.
	leaving atomic.Bool
	// moving is the address of the member that this node still has to replace.
	moving atomic.Pointer[string]

	gone sync.Once // Removed is told

	changing chan struct{} // holds a token while this leader changes who counts as a member
	told     chan struct{} // has a token when the roster has changed
	notices  chan struct{} // has a token when another node has said that there is news

	mu    sync.Mutex
	known []string      // the nodes that have said so
	woken chan struct{} // closed when there is one more
}

func (m *membership) init() {
	m.changing = make(chan struct{}, 1)
	m.told = make(chan struct{}, 1)
	m.notices = make(chan struct{}, 1)
	m.woken = make(chan struct{})
}

// oneAtATime waits until this leader makes no other change; done ends that.
func (m *membership) oneAtATime(ctx context.Context) (done func(), err error) {
	select {
	case m.changing <- struct{}{}:
		return func() { <-m.changing }, nil
	case <-ctx.Done():
		return nil, endOf(ctx)
	}
}

// movingFrom is the address to be replaced, "" if there is none.
func (m *membership) movingFrom() string {
	if from := m.moving.Load(); from != nil {
		return *from
	}
	return ""
}

// noticed is called when another node says that the membership has changed.
func (m *membership) noticed(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	const enough = 16
	if !slices.Contains(m.known, host) && len(m.known) < enough {
		m.known = append(m.known, host)
	}
	close(m.woken)
	m.woken = make(chan struct{})
	signal(m.notices)
}

func (m *membership) hosts() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.known)
}

// wake is closed at the next notice.
func (m *membership) wake() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.woken
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// loadMembership finds out where the node stands, given whether it has a log or a
// state.
func (n *Node) loadMembership(fresh bool) error {
	id, m := n.volume.Identity(), &n.membership
	m.leaving.Store(id.Gone == datadir.Leaving)
	switch {
	case id.Gone == datadir.Left, id.Gone == datadir.Removed:
		if !n.options.Standby && (id.Gone != datadir.Left || len(n.options.Join) == 0) {
			return fmt.Errorf("%w (%s): wipe %s, or start with Standby (--standby) and let a member join it", ErrRemoved, id.Gone, n.options.Dir)
		}
		m.joining = true
	case fresh:
		m.joining = len(n.options.Join) > 0 || n.options.Standby
		m.alone = !m.joining && len(n.options.Peers) == 0
	case id.MovedFrom != "":
		m.moving.Store(&id.MovedFrom)
		servers, _ := n.fsm.roster.members()
		if old, known := find(servers, id.MovedFrom); known {
			err := n.volume.Update(func(i *datadir.Identity) { i.MovedReplica = old.Suffrage != raft.Voter })
			if err != nil {
				return err
			}
		}
	}
	n.fsm.roster.tell = func(happened []Event) {
		for _, e := range happened {
			n.emit(e)
		}
		n.network.keepOut()
		signal(m.told)
	}
	return nil
}

// seekPlace asks leaders for the place that the node was started for, until it has
// it.
func (n *Node) seekPlace() {
	c, wanted := n.wantedPlace()
	if !wanted {
		return
	}
	retry := retryPolicy{wait: n.options.RetryWait}
	for try := 0; ; try++ {
		err := n.askForPlace(c)
		if err != nil && try == patience && n.ctx.Err() == nil {
			n.warn(err, "not taken in yet", "asked", n.acquaintances())
		}
		if err == nil {
			n.bootstrap.refused(nil)
			return
		}
		var again errAskAgain
		if n.membership.leaving.Load() {
			return
		}
		if !errors.As(err, &again) && n.ctx.Err() == nil {
			n.bootstrap.refused(err)
			n.warn(err, "not taken in")
		}
		c.Again = true
		if retry.pause(n.ctx, try, n.membership.wake()) != nil {
			return
		}
	}
}

// patience is how often a node asks for its place before it says that it gets no answer.
const patience = 10

func (n *Node) wantedPlace() (change, bool) {
	c := change{Op: opJoin, Address: n.address, Nonvoter: n.options.Nonvoter}
	servers, _ := n.fsm.roster.members()
	if from := n.membership.movingFrom(); from != "" {
		c.Op, c.From, c.Nonvoter = opMove, from, n.volume.Identity().MovedReplica
		return c, true
	}
	self, member := find(servers, n.address)
	promotable := member && self.Suffrage != raft.Voter && !n.options.Nonvoter
	return c, len(n.options.Join) > 0 && (n.membership.joining || promotable)
}

func (n *Node) askForPlace(c change) error {
	answers, refused := n.askPeers()
	i := slices.IndexFunc(answers, func(h hello) bool { return h.Leader != "" })
	switch {
	case i >= 0:
		return n.callChange(n.ctx, answers[i].Leader, c)
	case len(answers) == 0 && refused != nil:
		return refused
	}
	return errAskAgain{ErrNoLeader, true}
}

// watchMembership finds out when the node is no member any more: by what it applies,
// by a notice of the leader that has removed it, or, when it has heard of no leader
// for a while, by asking the others.
func (n *Node) watchMembership() {
	n.checkRoster() // what it has applied before
	ticker := time.NewTicker(2 * n.options.ElectionTimeout)
	defer ticker.Stop()
	lonely := false
	for {
		ask := false
		select {
		case <-n.membership.told:
			n.checkRoster()
		case <-n.membership.notices:
			ask = true
		case <-ticker.C:
			n.stays()
			ask, lonely = lonely && n.leader() == "", n.leader() == ""
		case <-n.ctx.Done():
			return
		}
		if ask && n.settled() {
			n.askForStanding()
		}
	}
}

// isMember tells whether the node is a member, as far as it knows.
func (n *Node) isMember() bool {
	_, member := find(n.servers(), n.address)
	return member && n.admission.isGranted()
}

// heardOf is told of a node that has opened a connection for raft. To one that waits it
// is a member of a cluster which takes it for one: it has lost its disk.
func (n *Node) heardOf(from string) {
	if n.waiting() {
		n.membership.noticed(from)
	}
}

// waiting tells whether the node waits to be taken into a cluster.
func (n *Node) waiting() bool { return n.membership.joining && !n.admission.isGranted() }

// mayServeStale refuses what a node still has that was removed.
func (n *Node) mayServeStale() error {
	if n.waiting() {
		return fmt.Errorf("%w: it waits to be taken in", ErrNotMember)
	}
	return nil
}

// settled tells whether the node has had a place, so that it can lose it.
func (n *Node) settled() bool {
	return n.admission.isGranted() && len(n.members()) > 0 && n.membership.movingFrom() == ""
}

// checkRoster acts on what the node has applied.
func (n *Node) checkRoster() {
	servers, index := n.fsm.roster.members()
	self, member := find(servers, n.address)
	_, stillOld := find(servers, n.membership.movingFrom())
	if member && !stillOld && (self.Suffrage == raft.Voter || n.volume.Identity().MovedReplica) {
		n.hasMoved()
	}
	if !n.settled() {
		return
	}
	switch {
	case n.fsm.roster.replaced(n.address, n.self()):
		n.expelled(ErrReplaced)
	case !member && index > n.admission.admittedAt().Index:
		n.expelled(ErrRemoved)
	}
}

// hasMoved records that the member has this node's address now, if it had another one.
func (n *Node) hasMoved() {
	if n.membership.movingFrom() == "" {
		return
	}
	if err := n.volume.Update(func(i *datadir.Identity) { i.MovedFrom, i.MovedReplica = "", false }); err != nil {
		n.warn(err, "not recorded that the node has moved")
		return
	}
	n.membership.moving.Store(nil)
}

// memberID is who asks for its standing, or admission.
type memberID struct {
	Address  string
	Identity wire.Identity
}

// replaced tells whether another node than i has taken its place at address: in the
// state, or in the log already.
func (n *Node) replaced(address string, i wire.Identity) bool {
	admitted, known := n.fsm.roster.admittedAt(address)
	if later, found := n.stores.fenced.fence.latest(address); found && (!known || later.Later(admitted)) {
		admitted, known = later, true
	}
	return known && isReplaced(i, admitted)
}

// self is what others need to know to tell this node from others that have run at its
// address.
func (n *Node) self() wire.Identity {
	entry := n.admission.admittedAt()
	return wire.Identity{Incarnation: n.incarnation, Term: entry.Term, Index: entry.Index}
}

// place is what the cluster has agreed on about a node, up to a log index.
type place struct {
	Member   bool
	Replaced bool // another incarnation counts
	Index    uint64
}

// placeOf answers askForStanding.
func (n *Node) placeOf(ctx context.Context, m memberID) (place, error) {
	index, err := n.tryReadIndex(ctx, Linearizable)
	if err == nil {
		err = n.fsm.applied.wait(ctx, index)
	}
	if err != nil {
		return place{}, err
	}
	servers, _ := n.fsm.roster.members()
	_, member := find(servers, m.Address)
	return place{Member: member, Replaced: n.fsm.roster.replaced(m.Address, m.Identity), Index: index}, nil
}

// askForStanding asks one who knows whether this node is a member.
func (n *Node) askForStanding() {
	answers, _ := n.askPeers()
	knows := n.whoKnows(answers)
	if knows == "" {
		return
	}
	payload, err := msgpack.Marshal(&memberID{n.address, n.self()})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.options.RPCTimeout)
	defer cancel()
	reply, err := n.peers.call(ctx, knows, methodMember, payload)
	var p place
	if err == nil {
		err = message.Unmarshal(reply, &p)
	}
	switch {
	case err != nil:
		n.logger.Debug("cannot find out whether this is a member", "err", decodeError(err))
	case p.Index < n.admission.admittedAt().Index: // from before it was one
	case p.Replaced:
		n.expelled(ErrReplaced)
	case !p.Member:
		n.expelled(ErrRemoved)
	}
}

// whoKnows is a node that can tell what the cluster has agreed on about this one: the
// leader, as others know it. When that is at this node's own address, it is the process
// that has replaced it, and one who says so is asked. "" if there is none.
func (n *Node) whoKnows(answers []hello) string {
	replacement := ""
	for _, h := range answers {
		switch {
		case h.Leader != "" && h.Leader != n.address:
			return h.Leader
		case h.Leader == n.address && n.leader() != n.address:
			replacement = h.Address
		}
	}
	return replacement
}

// expelled stops a node that is no member any more.
func (n *Node) expelled(why error) {
	if n.failure.Load() != nil {
		return
	}
	gone := datadir.Removed
	if n.membership.leaving.Load() {
		gone = datadir.Left
	}
	if err := n.recordGone(gone); err != nil {
		why = errors.Join(why, err)
	}
	n.tellRemoved()
	n.fail(why)
}

// kindOf gives the failure that stopped a node its kind.
func kindOf(failure error) error {
	if errors.Is(failure, ErrRemoved) || errors.Is(failure, ErrReplaced) {
		return failure
	}
	return fmt.Errorf("%w: %w", ErrFailed, failure)
}

// leaveForGood takes the node out of the cluster before it stops. What it intends is
// recorded first: the answer may not come.
func (n *Node) leaveForGood(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, n.options.RequestTimeout)
	defer cancel()
	err := n.recordGone(datadir.Leaving)
	if err == nil {
		n.membership.leaving.Store(true)
		err = n.changeMembership(ctx, "leave", change{Op: opLeave, Address: n.address})
	}
	switch {
	case err == nil:
		err = n.recordGone(datadir.Left)
		n.tellRemoved()
	case errors.Is(err, ErrQuorum):
		err = errors.Join(err, n.recordGone(""))
	}
	if err != nil {
		n.warn(err, "stops without leaving")
	}
	return err == nil
}

func (n *Node) recordGone(how string) error {
	return n.volume.Update(func(i *datadir.Identity) { i.Gone = how })
}

// stays notices that the node is a member still, though it had asked to leave when it
// ran before.
func (n *Node) stays() {
	if n.volume.Identity().Gone != datadir.Leaving || n.leader() == "" || !n.isMember() || !n.isRunning() {
		return
	}
	if err := n.recordGone(""); err != nil {
		n.warn(err, "not recorded that the node stays")
		return
	}
	n.membership.leaving.Store(false)
}

// tellRemoved tells once.
func (n *Node) tellRemoved() { n.membership.gone.Do(func() { n.emit(Removed{}) }) }
