package skiff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/address"
	"github.com/skiffdb/skiff/internal/disk"
	"github.com/skiffdb/skiff/internal/wire"
)

// Node is one member of a cluster, in this process. A node is started once and
// stopped once; make another one to start again. Its methods may be called
// concurrently.
type Node struct {
	address string
	options Options
	logger  *slog.Logger

	// ctx ends when the node stops or fails, with that as its cause.
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // the node's own goroutines
	// futures counts who waits for an answer of raft. It may grow while ops, wg or
	// the proposer have work.
	futures sync.WaitGroup

	mu      sync.RWMutex // guards phase
	phase   phase
	ended   chan struct{}  // closed when Stop is done
	ops     sync.WaitGroup // operations under way; grows only while running
	started time.Time

	// The parts, set by Start before the phase is running.
	volume    disk.Volume
	stores    *raftStores
	log       *guardedLog // what raft sees of stores
	fsm       *fsm
	snapshots *snapshotStore
	network   *network
	peers     *peers
	transport *raftTransport
	raft      *raft.Raft
	proposer  *proposer

	// raftRef is raft as seen by what raft itself calls while it starts.
	raftRef atomic.Pointer[raft.Raft]

	// endRaft shuts raft down. Only its first call gives a future that waits.
	endRaft func() raft.Future

	// reads asks the leader for a read index, leads makes sure that this node is
	// the leader. Both do so for all that wait at once.
	reads, leads shared[uint64]

	incarnation wire.Incarnation // set by Start
	clusterID   atomic.Pointer[wire.ClusterID]
	leadership  leadership
	bootstrap   bootstrap
	admission   admission
	membership  membership
	weakness    weakness
	told        telling
	readiness   readiness
	events      events
	counters    *counters

	failure  atomic.Pointer[error]
	failed   chan struct{} // closed when failure is set
	failOnce sync.Once
	muted    chan struct{} // closed when a goroutine of raft's has ended: some of who asks may wait for ever
	muteOnce sync.Once
	failing  sync.WaitGroup // the goroutine that acts on a failure
}

// phase is where a node is in its life.
type phase int

const (
	created phase = iota
	starting
	running
	handingOver // still serves
	stopping
	stopped
)

// New makes a node that others reach at address, a multiaddr such as
// "/ip4/127.0.0.1/tcp/9490". Nothing is opened before Start. An error is an
// [*OptionError] that names what is wrong.
func New(addr string, o Options) (*Node, error) {
	canonical, err := address.Canonical(addr)
	if err != nil {
		return nil, &OptionError{"address", err.Error()}
	}
	o = o.withDefaults(canonical)
	if err := o.validate(canonical); err != nil {
		return nil, err
	}
	n := &Node{
		address: canonical,
		options: o,
		logger:  o.Logger.With("node", canonical),
		failed:  make(chan struct{}),
		ended:   make(chan struct{}),
		muted:   make(chan struct{}),
	}
	n.counters = newCounters()
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.reads = shared[uint64]{ctx: n.ctx, wg: &n.wg, run: n.askReadIndex}
	n.leads = shared[uint64]{ctx: n.ctx, wg: &n.wg, run: n.verifiedIndex}
	n.readiness.checks = shared[struct{}]{ctx: n.ctx, wg: &n.wg, run: n.checkReady}
	n.readiness.due = make(chan struct{}, 1)
	n.leadership.init()
	n.membership.init()
	n.proposer = newProposer(n.ctx, n, n.retryPolicy(), n.knownClusterID)
	return n, nil
}

func (n *Node) retryPolicy() retryPolicy {
	return retryPolicy{wait: n.options.RetryWait, count: n.options.RetryCount}
}

// Address is the node's canonical address.
func (n *Node) Address() string { return n.address }

// Start opens the data directory, loads the state and begins to listen and to
// take part in the cluster. It does not wait for others: see [Node.WaitReady].
// If it fails, everything it opened is closed again. ctx bounds the start only.
func (n *Node) Start(ctx context.Context) error {
	n.mu.Lock()
	if n.phase != created {
		n.mu.Unlock()
		return n.wrap("start", nil, errors.New("a node is started once; make a new one"))
	}
	n.phase = starting
	n.mu.Unlock()

	if err := n.start(ctx); err != nil {
		n.mu.Lock()
		n.phase = stopped
		n.mu.Unlock()
		return n.wrap("start", nil, errors.Join(err, n.close()))
	}
	n.run()
	n.logger.Info("started", "dir", n.options.Dir, "applied", n.fsm.applied.value())
	return nil
}

// run lets operations in, and tells so.
func (n *Node) run() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.phase = running
	n.started = time.Now()
	n.events.open(n.stamp(Started{}))
}

func (n *Node) start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		n.openDisk, n.openState, n.listen, n.startRaft, n.serve,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) openState(context.Context) error {
	root, err := n.volume.State()
	if err != nil {
		return err
	}
	store, err := openState(root, n.options.StateOptions)
	if err != nil {
		return stateError(err)
	}
	for _, cut := range store.Cut() {
		n.warn(cut, "the state ends early, and is repaired from the log")
	}
	n.fsm, err = newFSM(store, n.setClusterID, n.fail)
	if err != nil {
		return errors.Join(stateError(err), store.Close())
	}
	n.fsm.applied.owner = n.ctx
	n.stores, err = openRaftStores(n.volume.Raft, n.options.retention(), n.failMuted)
	if err != nil {
		return err
	}
	n.snapshots = &snapshotStore{
		fsm: n.fsm, log: n.stores.log, retaining: n.stores.retaining, root: root,
		opts: n.options.StateOptions, chunkSize: n.options.InstallChunkSize,
		rate: newRate(n.options.InstallRate), emit: n.emit,
	}
	n.fsm.snapshots = n.snapshots
	if err := checkContinuity(store, n.stores.log); err != nil {
		return fmt.Errorf("%s: %w", n.options.Dir, err)
	}
	if err := n.stores.fenced.load(n.fsm.applied.value()); err != nil {
		return err
	}
	if err := n.loadAdmission(); err != nil {
		return err
	}
	if err := n.moveAlone(); err != nil {
		return err
	}
	if err := n.volume.SyncNames(); err != nil {
		return err
	}
	return n.loadClusterID()
}

func (n *Node) listen(ctx context.Context) error {
	addr, err := n.options.listenAddress()
	if err != nil {
		return err
	}
	l, err := n.options.Transport.Listen(ctx, addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	n.network = newNetwork(n.address, l, n.options.RPCTimeout, n.logger)
	n.network.clusterID = n.knownClusterID
	n.network.identity, n.network.replaced = n.self, n.replaced
	n.stores.fenced.fence.changed = n.network.keepOut
	n.network.alone = n.membership.alone
	n.network.heard = n.heardOf
	n.network.rpc = func() wire.Handler { return n.serveNode }
	n.network.client = n.serveClient
	n.network.install = n.receiveState
	n.network.warn = n.warn
	n.network.links.emit = n.emit
	n.network.silence = 2 * n.raftIdle()
	n.peers = newPeers(n.dialer(), wire.KindRPC)
	n.peers.idle = n.options.InactivityTimeout
	return nil
}

// serve lets others in. Until the phase is running they are told to come back.
func (n *Node) serve(context.Context) error {
	n.network.serve()
	return nil
}

func (n *Node) dialer() *dialer {
	return &dialer{
		self: n.address, transport: n.options.Transport,
		timeout: n.options.RPCTimeout, clusterID: n.knownClusterID,
		identity: n.self, replaced: n.replaced, unconfirmedID: n.unconfirmedID,
		network: n.network, links: n.network.links,
	}
}

// raftIdle is how long a connection of raft's may be idle. It is in use for
// RPCTimeout after a request has begun.
func (n *Node) raftIdle() time.Duration {
	return max(n.options.InactivityTimeout, n.options.RPCTimeout)
}

func (n *Node) startRaft(context.Context) (err error) {
	logger := newRaftLogger(n.logger)
	stream := raftStream{network: n.network, dialer: n.dialer(), idle: n.raftIdle()}
	n.transport = newRaftTransport(stream, n.options.RPCTimeout, logger, n.stores.log, n.permit)
	n.transport.mayCampaign = n.mayCampaign
	n.transport.mayWait = n.mayWait
	n.transport.mayLead = n.mayLead
	n.transport.leader = n.leaderOfRaft
	n.transport.term = n.termOfRaft
	n.transport.voter = n.voterOfRaft
	n.transport.loyalty.patience = n.options.HeartbeatTimeout
	n.transport.pulse = newPulse(&n.options)
	n.transport.awaitStored = n.stores.parallel.awaitStored
	n.log = &guardedLog{raftLog: n.stores.log, onFailure: n.fail, onMuted: n.failMuted, onStored: n.transport.learner.stored}
	n.stores.parallel.connect(n.isLeader, func() bool { return len(n.otherVoters()) == 0 }, n.log.writeFailed)
	n.raft, err = newRaft(n.raftConfig(), n.fsm, n.log, n.stores.stable, n.snapshots, n.transport)
	if failure := n.failure.Load(); err != nil && failure != nil {
		return fmt.Errorf("%w: %w", err, *failure)
	}
	if err != nil {
		return err
	}
	n.log.running.Store(true)
	n.raftRef.Store(n.raft)
	n.endRaft = sync.OnceValue(n.raft.Shutdown)
	n.beginTelling()
	n.wg.Go(n.watchReady)
	n.wg.Go(n.watchLeadership)
	n.wg.Go(n.watchLogGrowth)
	n.wg.Go(n.watchStalls)
	n.failing.Go(n.watchFailure)
	n.wg.Go(n.form)
	n.wg.Go(n.seekPlace)
	n.wg.Go(n.watchMembership)
	return nil
}

// newRaft turns raft's panics over a damaged log into errors. It runs on a
// goroutine of its own, which stableStore may end. raft makes text of some errors, so
// what it has read is read again for the cause.
func newRaft(c *raft.Config, f *fsm, log raft.LogStore, stable raft.StableStore, snapshots *snapshotStore, t *raftTransport) (*raft.Raft, error) {
	var r *raft.Raft
	err := errors.New("term or vote cannot be stored")
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = survive(func() (err error) {
			r, err = raft.NewRaft(c, f, log, stable, snapshots, t)
			return err
		})
	}()
	<-done
	if err == nil {
		return r, nil
	}
	if cause := readEnds(log, stable); cause != nil {
		err = cause
	}
	return nil, fmt.Errorf("start raft: %w", err)
}

func (n *Node) raftConfig() *raft.Config {
	o := n.options
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.address)
	c.Logger = newRaftLogger(n.logger)
	c.HeartbeatTimeout = o.HeartbeatTimeout
	c.ElectionTimeout = o.ElectionTimeout
	c.LeaderLeaseTimeout = o.LeaderLease
	// This is how long a follower may have to wait, after writes have ceased, until
	// it hears that they are committed, unless it is asked for them: see learner.
	// It is also how often a leader hears from followers beside heartbeats.
	c.CommitTimeout = min(o.HeartbeatTimeout/5, o.LeaderLease/4, 100*time.Millisecond)
	c.MaxAppendEntries = o.MaxAppendEntries
	c.BatchApplyCh = true
	c.SnapshotInterval = o.SnapshotInterval
	c.SnapshotThreshold = o.SnapshotThreshold
	c.TrailingLogs = 1                // retainingLog keeps more
	c.NoSnapshotRestoreOnStart = true // the state on disk is the state machine
	c.NoLegacyTelemetry = true
	return c
}

// await calls ask, which asks raft for something and returns its answer, and waits
// for it as long as ctx allows. raft may take its time even to accept a question.
func (n *Node) await(ctx context.Context, ask func() error) error {
	done := make(chan error, 1)
	n.futures.Go(func() { done <- ask() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return endOf(ctx)
	}
}

// begin registers an operation, which must call n.ops.Done. It fails unless the
// node is running.
func (n *Node) begin() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if failure := n.failure.Load(); failure != nil {
		return kindOf(*failure)
	}
	if n.phase != running && n.phase != handingOver {
		return ErrNotRunning
	}
	n.ops.Add(1)
	return nil
}

// bound returns a context that ends with the caller's and with the node.
func (n *Node) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.ctx, func() { cancel(context.Cause(n.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

// DB returns a handle on the replicated database that works on this node. Each
// call returns a handle of its own; closing one does not stop the node.
func (n *Node) DB() *DB {
	return newDB(&local{n}, n.options.RequestTimeout, n.options.limits())
}

// WaitReady returns when a leader is known and has a majority behind it, and
// reaches [Options.MinConsensus] voters; or with an error when ctx ends or this node
// finds that it cannot become a member (see [ErrPeersDisagree], [ErrNotMember]).
func (n *Node) WaitReady(ctx context.Context) error {
	if err := n.begin(); err != nil {
		return n.wrap("wait until ready", nil, err)
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	for try := 0; ; try++ {
		changed := n.leaderChanged()
		if err := n.bootstrap.err(); err != nil {
			return n.wrap("wait until ready", nil, err)
		}
		_, err := n.reads.do(ctx)
		if err == nil {
			_, err = n.readiness.checks.do(ctx)
		}
		if err == nil {
			return nil
		}
		if stop := (retryPolicy{wait: n.options.RetryWait}).pause(ctx, try, changed); stop != nil {
			return n.wrap("wait until ready", ErrNoLeader, gaveUp(stop, err))
		}
	}
}

// ReadConsensus returns when this node's own state has everything that had been
// acknowledged anywhere in the cluster before the call. Stale reads on this node
// that follow see all of it.
func (n *Node) ReadConsensus(ctx context.Context) error {
	err := n.readBarrier(ctx, Linearizable)
	return n.wrapNil("read consensus", err)
}

// Snapshot makes the state durable and truncates the log behind it, keeping
// [Options.TrailingLogs] entries. No data is copied. The node also does so by
// itself.
func (n *Node) Snapshot(ctx context.Context) error {
	if err := n.begin(); err != nil {
		return n.wrap("snapshot", nil, err)
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	err := n.await(ctx, func() error { return n.raft.Snapshot().Error() })
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return n.wrapNil("snapshot", err)
}

// watchLogGrowth takes a snapshot when the log has grown by Options.SnapshotBytes;
// raft itself counts entries.
func (n *Node) watchLogGrowth() {
	for {
		select {
		case <-n.stores.retaining.due:
			err := n.await(n.ctx, func() error { return n.raft.Snapshot().Error() })
			if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && n.ctx.Err() == nil {
				// An event has come from the snapshot itself.
				n.logger.Warn("no snapshot taken", "err", err)
			}
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) wrap(op string, kind, err error) error {
	return &Error{Op: op, Node: n.address, Kind: kind, Err: err}
}

func (n *Node) wrapNil(op string, err error) error {
	if err == nil {
		return nil
	}
	return n.wrap(op, nil, stateError(err))
}
