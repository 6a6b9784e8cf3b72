package skiff

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff/internal/address"
)

// LogStore names the store under the raft log.
type LogStore string

const (
	// LogStoreWAL keeps the log in segment files (raft-wal). It is the default for new
	// data directories: it writes less for each entry.
	LogStoreWAL LogStore = "wal"
	// LogStoreBolt keeps the log in a bbolt database (raft-boltdb/v2).
	LogStoreBolt LogStore = "bolt"
)

// Limits that hold whatever the options say, because every node of a cluster
// must be able to read what any other one sends.
const (
	maxBatchSizeLimit = 32 << 20
	maxReadSetLimit   = 32 << 20
	minTimeout        = 10 * time.Millisecond
)

// Options configures a [Node]. The zero value of each field means its default;
// only Dir (or InMemory) has to be set.
type Options struct {
	// Dir is the data directory. It is created if missing, locked while the node
	// runs, and belongs to one address, one cluster and one log store for good.
	Dir string

	// InMemory keeps log and state in memory only. Such a node forgets everything
	// at Stop. Started again under its address it is taken in like a member that
	// has lost its disk, and gets the state from the others; when a majority is
	// stopped at once, all that the cluster held is gone, and all nodes have to be
	// stopped before they found another one.
	InMemory bool

	// Peers lists the addresses of the other initial members. All initial members
	// must list each other; empty means a cluster of one. It matters at the very
	// first start only: afterwards the persisted configuration wins.
	Peers []string

	// Join lists members of an existing cluster, any of them. A node without data
	// asks them to take it in, until they have; it founds no cluster. With data it
	// means nothing, except that a node which has left by itself (LeaveOnStop) comes
	// back by it. Contradicts Peers.
	Join []string

	// Standby makes a node without data, or one that was removed from its cluster,
	// wait until a member takes it in with [Node.Join]. Contradicts Peers.
	Standby bool

	// Nonvoter makes a node that joins by itself a read replica: it has all data and
	// serves everything, but neither votes nor counts for a majority.
	Nonvoter bool

	// LeaveOnStop makes Stop take the node out of the cluster first, as far as its
	// context allows. Where that is refused (see [Node.Leave]) or fails, the node stops as
	// a member, and a [Warning] says so. It comes back by Join.
	LeaveOnStop bool

	// MovedFrom is the address under which the data directory was used so far, when
	// the node starts under another one for the first time. Its member is replaced by
	// one with the new address, which needs a leader unless it is the only voter. It may
	// stay set afterwards, as long as the directory is not wiped.
	MovedFrom string

	// MinConsensus is how many voters have to be reachable for the leader, itself
	// included, until this node calls the cluster ready ([Node.WaitReady], [Ready]):
	// they have answered a heartbeat within HeartbeatTimeout, which is also how often
	// that is looked at. Reads and writes do not wait for it. With more than the cluster
	// has voters it is never ready. Default 0: a majority, which always has to be.
	MinConsensus int

	// InactivityTimeout is how long a connection between nodes may be idle before it
	// is closed. It is opened again when it is needed. Those of raft are kept for
	// RPCTimeout at least. It should be the same on all nodes: one that has been silent
	// for twice as long is taken for dead by the other side. Default 30 s.
	InactivityTimeout time.Duration

	// Listen is the address to listen on, when it differs from the address that
	// the others dial: "/ip4/0.0.0.0/tcp/9490", say. Default: the node's address.
	Listen string

	// Transport opens listeners and connections. Default: TCP and unix sockets.
	Transport Transport

	// LogStore chooses the store under the raft log of a new data directory. An
	// existing one keeps what it has; naming another is an error.
	// Default: that of the directory, LogStoreWAL for a new one.
	LogStore LogStore

	// StateOptions are goleveldb's options for the state. Skiff takes over what it
	// depends on: Comparer must be nil; ErrorIfExist, ErrorIfMissing, ReadOnly and
	// NoSync must be false; BlockCacheEvictRemoved, DisableLargeBatchTransaction,
	// MaxManifestFileSize and Strict are overwritten. Default: a bloom filter of 10 bits
	// for each key, a WriteBuffer of 8 MiB, a BlockCacheCapacity of 32 MiB, a BlockSize
	// of 16 KiB, a CompactionTotalSize of 64 MiB, 8, 12 and 20 tables for
	// CompactionL0Trigger, WriteL0SlowdownTrigger and WriteL0PauseTrigger,
	// DisableBufferPool, otherwise goleveldb's defaults. Options that are given have no
	// defaults but goleveldb's.
	StateOptions *opt.Options

	// HeartbeatTimeout is how long a follower waits without hearing from the leader
	// before it stands for election; the actual wait is random between one and three
	// times this, and the first whose wait ends is elected. The leader sends a heartbeat
	// about every third of LeaderLease. Default 500 ms: short enough that a lost leader
	// is replaced in less than a second, mostly, long enough that a scheduling stall of
	// 100 ms on a loaded machine does not cost an election. Use more between regions.
	HeartbeatTimeout time.Duration

	// ElectionTimeout is how long a candidate waits for votes before it starts
	// over. At least HeartbeatTimeout, which is the default.
	ElectionTimeout time.Duration

	// LeaderLease is how long a leader goes on leading without hearing from a
	// majority. At most HeartbeatTimeout, so that an old leader has stepped down
	// when a new one is elected (for what Lease reads make of it, see [Lease]).
	// Default: four fifths of HeartbeatTimeout.
	LeaderLease time.Duration

	// RPCTimeout bounds one request between nodes, dialling included, and how long
	// a connection may make no progress. Default 2 s.
	RPCTimeout time.Duration

	// RequestTimeout bounds each call of a goleveldb-shaped method, which takes no
	// context; [DB.WithContext] sets a bound of its own. Default 10 s: several
	// elections.
	RequestTimeout time.Duration

	// RetryWait is the wait before a request is sent again when no leader is known
	// or a node did not answer; it doubles up to 16 times itself, with jitter, and a
	// newly elected leader ends it. Default 20 ms.
	RetryWait time.Duration

	// RetryCount is how many times a request is sent again. Default 0: until its
	// context ends. Repeating is safe, each write is applied at most once.
	RetryCount int

	// MaxAppendEntries bounds the log entries in one message to a follower.
	// Default 64 (an entry holds a whole group of waiting writes), at most 1024.
	MaxAppendEntries int

	// MaxKeySize, MaxValueSize and MaxBatchSize bound one key, one value, and one
	// batch, in bytes; a batch counts its keys and values, and 16 for each pair. Past
	// them a write fails with ErrTooLarge before anything is sent. Defaults 64 KiB,
	// 8 MiB and 16 MiB: a batch is one log entry, which must be sent within
	// RPCTimeout and synced as a whole while others wait. MaxBatchSize is at most
	// 32 MiB, and the others at most it.
	MaxKeySize, MaxValueSize, MaxBatchSize int

	// MaxReadSet bounds, in bytes, what a transaction that writes may read: each key
	// counts its length and 16, and so does each end of a range that an iterator
	// walked over. Past it Commit fails with ErrTooLarge. The conditions of a write
	// count likewise. They also count in MaxBatchSize. All nodes look at each of these
	// keys when they apply the commit, while others wait. Default 1 MiB, at most 32 MiB.
	MaxReadSet int

	// SnapshotThreshold is how many log entries may pile up before the state is
	// synced and the log truncated; SnapshotInterval is how often that is checked
	// (the actual interval is random between one and two times this).
	// SnapshotBytes is by how many bytes the log may grow, which is checked at each
	// write. A snapshot copies no data, so all this is cheap. Defaults 8192, 10 s and
	// 64 MiB.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	SnapshotBytes     int64

	// TrailingLogs is how many log entries are kept behind a snapshot, so that a
	// follower that was away for a while catches up from the log instead of having
	// the whole state installed; TrailingBytes bounds them in bytes, beyond which
	// just the last one is kept. What a follower needs after a state that is just
	// being installed there is kept too, up to 16 times TrailingBytes, so that
	// writes that come meanwhile do not make it start over. Defaults 10240 and
	// 64 MiB.
	TrailingLogs  uint64
	TrailingBytes int64

	// InstallChunkSize is the size in bytes of the checksummed chunks in which the
	// state is sent to a follower that is too far behind. Default 1 MiB, at most
	// 16 MiB. InstallRate bounds, in bytes per second, how fast this node sends
	// states, all together; at least 64 KiB. Default 64 MiB, which leaves a leader
	// most of its disk and half of a network of 1 Gbit/s.
	InstallChunkSize int
	InstallRate      int64

	// Logger receives what the node and raft have to say. Default: silent.
	Logger *slog.Logger
}

// withDefaults returns a copy in which every field has its effective value.
func (o Options) withDefaults(addr string) Options {
	setDefault(&o.Listen, addr)
	setDefault(&o.HeartbeatTimeout, 500*time.Millisecond)
	setDefault(&o.ElectionTimeout, o.HeartbeatTimeout)
	setDefault(&o.LeaderLease, o.HeartbeatTimeout*4/5)
	setDefault(&o.RPCTimeout, 2*time.Second)
	setDefault(&o.RequestTimeout, 10*time.Second)
	setDefault(&o.InactivityTimeout, 30*time.Second)
	setDefault(&o.RetryWait, 20*time.Millisecond)
	setDefault(&o.MaxAppendEntries, 64)
	setDefault(&o.MaxBatchSize, 16<<20)
	setDefault(&o.MaxValueSize, min(8<<20, o.MaxBatchSize))
	setDefault(&o.MaxKeySize, min(64<<10, o.MaxBatchSize))
	setDefault(&o.MaxReadSet, 1<<20)
	setDefault(&o.SnapshotThreshold, 8192)
	setDefault(&o.SnapshotInterval, 10*time.Second)
	setDefault(&o.SnapshotBytes, 64<<20)
	setDefault(&o.TrailingLogs, 10240)
	setDefault(&o.TrailingBytes, 64<<20)
	setDefault(&o.InstallChunkSize, 1<<20)
	setDefault(&o.InstallRate, 64<<20)
	if o.Transport == nil {
		o.Transport = netTransport{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate checks options that withDefaults has completed, and brings addresses
// into canonical form. self is the node's canonical address.
func (o *Options) validate(self string) error {
	for _, check := range []func(self string) error{
		o.validateStorage, o.validateAddresses, o.validateTimes, o.validateSizes,
	} {
		if err := check(self); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) validateStorage(string) error {
	switch {
	case o.Dir == "" && !o.InMemory:
		return &OptionError{"Dir", "is empty; name a data directory, or set InMemory"}
	case o.Dir != "" && o.InMemory:
		return &OptionError{"InMemory", "contradicts Dir; set one of them"}
	case o.LogStore != "" && o.LogStore != LogStoreBolt && o.LogStore != LogStoreWAL:
		return &OptionError{"LogStore", fmt.Sprintf("%q is not one of %q, %q", o.LogStore, LogStoreBolt, LogStoreWAL)}
	}
	s := o.StateOptions
	switch {
	case s == nil:
		return nil
	case s.Comparer != nil:
		return &OptionError{"StateOptions.Comparer", "must be nil; keys are ordered by their bytes"}
	case s.ErrorIfExist:
		return &OptionError{"StateOptions.ErrorIfExist", "must be false"}
	case s.ErrorIfMissing:
		return &OptionError{"StateOptions.ErrorIfMissing", "must be false"}
	case s.ReadOnly:
		return &OptionError{"StateOptions.ReadOnly", "must be false"}
	case s.NoSync:
		return &OptionError{"StateOptions.NoSync", "must be false; tables have to be on disk before the log is truncated"}
	}
	return nil
}

func (o *Options) validateAddresses(self string) error {
	if _, err := address.Parse(o.Listen); err != nil {
		return &OptionError{"Listen", err.Error()}
	}
	if err := canonicalList("Peers", o.Peers, self, &o.Peers); err != nil {
		return err
	}
	if err := canonicalList("Join", o.Join, self, &o.Join); err != nil {
		return err
	}
	if len(o.Peers) > 0 && (len(o.Join) > 0 || o.Standby) {
		return &OptionError{"Peers", "founds a cluster, which Join and Standby contradict; set one of them"}
	}
	if o.Nonvoter && len(o.Join) == 0 {
		return &OptionError{"Nonvoter", "needs Join; of a node on standby it is said by who joins it, with AsNonvoter"}
	}
	if o.MovedFrom == "" {
		return nil
	}
	c, err := address.Canonical(o.MovedFrom)
	if err != nil {
		return &OptionError{"MovedFrom", err.Error()}
	}
	o.MovedFrom = c
	return nil
}

// canonicalList brings the addresses of other nodes into canonical form.
func canonicalList(field string, list []string, self string, to *[]string) error {
	all := make([]string, 0, len(list))
	for i, a := range list {
		c, err := address.Canonical(a)
		switch {
		case err != nil:
			return &OptionError{fmt.Sprintf("%s[%d]", field, i), err.Error()}
		case c == self:
			return &OptionError{fmt.Sprintf("%s[%d]", field, i), "is the node's own address; list the others only"}
		case slices.Contains(all, c):
			return &OptionError{fmt.Sprintf("%s[%d]", field, i), "stands twice: " + c}
		}
		all = append(all, c)
	}
	*to = all
	return nil
}

func (o *Options) validateTimes(string) error {
	for _, t := range []struct {
		field string
		value time.Duration
	}{
		{"HeartbeatTimeout", o.HeartbeatTimeout}, {"ElectionTimeout", o.ElectionTimeout},
		{"LeaderLease", o.LeaderLease}, {"RPCTimeout", o.RPCTimeout},
		{"RequestTimeout", o.RequestTimeout}, {"SnapshotInterval", o.SnapshotInterval},
		{"InactivityTimeout", o.InactivityTimeout},
	} {
		if t.value < minTimeout {
			return &OptionError{t.field, fmt.Sprintf("%v is below %v", t.value, minTimeout)}
		}
	}
	switch {
	case o.ElectionTimeout < o.HeartbeatTimeout:
		return &OptionError{"ElectionTimeout", fmt.Sprintf("%v is below HeartbeatTimeout, %v", o.ElectionTimeout, o.HeartbeatTimeout)}
	case o.LeaderLease > o.HeartbeatTimeout:
		return &OptionError{"LeaderLease", fmt.Sprintf("%v is above HeartbeatTimeout, %v", o.LeaderLease, o.HeartbeatTimeout)}
	case o.RetryWait < time.Millisecond:
		return &OptionError{"RetryWait", fmt.Sprintf("%v is below 1ms", o.RetryWait)}
	case o.RetryCount < 0:
		return &OptionError{"RetryCount", fmt.Sprintf("%d is negative", o.RetryCount)}
	}
	return nil
}

func (o *Options) validateSizes(string) error {
	for _, s := range []struct {
		field      string
		value, max int
	}{
		{"MaxAppendEntries", o.MaxAppendEntries, 1024},
		{"MaxBatchSize", o.MaxBatchSize, maxBatchSizeLimit},
		{"MaxValueSize", o.MaxValueSize, o.MaxBatchSize},
		{"MaxKeySize", o.MaxKeySize, o.MaxBatchSize},
		{"MaxReadSet", o.MaxReadSet, maxReadSetLimit},
		{"InstallChunkSize", o.InstallChunkSize, 16 << 20},
	} {
		if s.value < 1 || s.value > s.max {
			return &OptionError{s.field, fmt.Sprintf("%d is not between 1 and %d", s.value, s.max)}
		}
	}
	switch {
	case o.MinConsensus < 0:
		return &OptionError{"MinConsensus", fmt.Sprintf("%d is negative", o.MinConsensus)}
	case o.SnapshotBytes < 1:
		return &OptionError{"SnapshotBytes", fmt.Sprintf("%d is not positive", o.SnapshotBytes)}
	case o.InstallRate < sendPiece:
		return &OptionError{"InstallRate", fmt.Sprintf("%d is below %d", o.InstallRate, sendPiece)}
	case o.TrailingBytes < 1:
		return &OptionError{"TrailingBytes", fmt.Sprintf("%d is not positive", o.TrailingBytes)}
	}
	return nil
}

func (o *Options) retention() retention {
	return retention{entries: o.TrailingLogs, bytes: o.TrailingBytes, grown: o.SnapshotBytes}
}

func (o *Options) limits() limits {
	return limits{key: o.MaxKeySize, value: o.MaxValueSize, batch: o.MaxBatchSize, reads: o.MaxReadSet}
}

// listenAddress is the parsed Listen; validate has checked it.
func (o *Options) listenAddress() (multiaddr.Multiaddr, error) {
	return address.Parse(o.Listen)
}
