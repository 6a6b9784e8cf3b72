package skiff

import (
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// maxUnstored is how many bytes, in the data of entries, may wait for the leader's own
// disk. It may be exceeded by what raft stores at once.
const maxUnstored = 4 << 20

// parallelLog lets a leader send entries to its followers while its own disk takes them,
// so that a commit costs the longer of the two, and not one after the other (Ongaro's
// thesis, section 10.2.1).
//
// raft takes an entry for stored on this node when StoreLogs has returned (raft.go,
// dispatchLogs). So that it commits none too early, it hears of no follower that has an
// entry before this node has it as well, see awaitStored: what is committed is on the disks
// of a majority, this one among them. Where this node could commit something alone, with an
// entry that changes who votes, and where it does not lead, StoreLogs returns when all is
// stored.
//
// A leader that is replaced before its disk has an entry must not vouch for it to the next
// leader, nor apply it: its state would be ahead of its log after a crash. raft reads each
// entry that it is sent and has already (raft.go, appendEntries), and each that it applies
// as a follower (processLogs), and there GetLog waits. The answer to a request without
// entries vouches for nothing (replication.go, updateLastAppended).
//
// raft calls StoreLogs from its main goroutine, GetLog and DeleteRange from any.
type parallelLog struct {
	raft.LogStore

	// What connect sets; nil: entries are always stored first.
	leads, alone func() bool
	onFailure    func(error)

	writing stopwatch // how long entries take to be stored
	wg      sync.WaitGroup

	mu       sync.Mutex
	unstored []*raft.Log // in order: those that come after what LogStore has
	bytes    int         // in them
	running  bool        // somebody stores them
	err      error       // of the write that failed; nothing is stored after it
	progress chan struct{}
}

func newParallelLog(store raft.LogStore) *parallelLog {
	return &parallelLog{LogStore: store, progress: make(chan struct{})}
}

// connect says whether this node leads, whether it is the only voter then, and who is told
// of a write that fails after StoreLogs has returned. leads becomes true on raft's main
// goroutine only. It is called before raft starts.
func (l *parallelLog) connect(leads, alone func() bool, onFailure func(error)) {
	l.leads, l.alone, l.onFailure = leads, alone, onFailure
}

// StoreLog implements raft.LogStore.
func (l *parallelLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *parallelLog) StoreLogs(logs []*raft.Log) error {
	if !l.mayReturnEarly(logs) {
		if err := l.settle(); err != nil {
			return err
		}
		return l.store(logs)
	}
	if err := l.until(nil, func() bool { return l.bytes < maxUnstored }); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.unstored = append(l.unstored, logs...)
	l.bytes += sizeOfEntries(logs)
	if !l.running {
		l.running = true
		l.wg.Go(l.run)
	}
	return nil
}

func (l *parallelLog) mayReturnEarly(logs []*raft.Log) bool {
	votersChange := func(entry *raft.Log) bool { return entry.Type == raft.LogConfiguration }
	return l.leads != nil && l.leads() && !l.alone() && !slices.ContainsFunc(logs, votersChange)
}

// run stores what there is until there is no more, or it fails.
func (l *parallelLog) run() {
	for logs := l.next(); logs != nil; logs = l.next() {
		err := l.store(logs)
		if err != nil {
			l.onFailure(err) // before anybody else finds out by it
		}
		l.done(logs, err)
	}
}

func (l *parallelLog) next() []*raft.Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = len(l.unstored) > 0 && l.err == nil
	if !l.running {
		return nil
	}
	return slices.Clone(l.unstored)
}

func (l *parallelLog) done(logs []*raft.Log, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err == nil {
		l.unstored = slices.Delete(l.unstored, 0, len(logs))
		l.bytes -= sizeOfEntries(logs)
	}
	close(l.progress)
	l.progress = make(chan struct{})
}

// store is called by one goroutine at a time.
func (l *parallelLog) store(logs []*raft.Log) error {
	l.writing.start(sizeOfEntries(logs))
	defer l.writing.stop()
	return l.LogStore.StoreLogs(logs)
}

// errGivenUp: something ended before entries were stored.
var errGivenUp = errors.New("not stored yet")

// awaitStored returns when entries up to index are stored. It gives up when ended is
// closed.
func (l *parallelLog) awaitStored(ended <-chan struct{}, index uint64) error {
	return l.until(ended, func() bool { return len(l.unstored) == 0 || l.unstored[0].Index > index })
}

// settle returns when all that there is now is stored.
func (l *parallelLog) settle() error {
	_, last := l.ends()
	return l.awaitStored(nil, last)
}

// ends are the first and the last entry that are not stored; 0 if all are.
func (l *parallelLog) ends() (first, last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.unstored); n > 0 {
		first, last = l.unstored[0].Index, l.unstored[n-1].Index
	}
	return first, last
}

// until waits until ok, which is called with mu held; or in vain.
func (l *parallelLog) until(ended <-chan struct{}, ok func() bool) error {
	for {
		l.mu.Lock()
		now, err, progress := ok(), l.err, l.progress
		l.mu.Unlock()
		switch {
		case now:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-progress:
		case <-ended:
			return errGivenUp
		}
	}
}

// find is an entry that is not stored yet; nil for all others.
func (l *parallelLog) find(index uint64) *raft.Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.unstored) == 0 || index < l.unstored[0].Index || index > l.unstored[len(l.unstored)-1].Index {
		return nil
	}
	return l.unstored[index-l.unstored[0].Index]
}

// GetLog implements raft.LogStore.
func (l *parallelLog) GetLog(index uint64, out *raft.Log) error {
	if entry := l.find(index); entry != nil {
		if l.leads() {
			*out = *entry
			return nil
		}
		if err := l.awaitStored(nil, index); err != nil {
			return err
		}
	}
	return l.LogStore.GetLog(index, out)
}

// FirstIndex implements raft.LogStore.
func (l *parallelLog) FirstIndex() (uint64, error) {
	unstored, _ := l.ends() // before it is asked for below, where it may be by then
	first, err := l.LogStore.FirstIndex()
	if err == nil && first == 0 {
		first = unstored
	}
	return first, err
}

// LastIndex implements raft.LogStore.
func (l *parallelLog) LastIndex() (uint64, error) {
	if _, last := l.ends(); last > 0 {
		return last, nil
	}
	return l.LogStore.LastIndex()
}

// DeleteRange implements raft.LogStore.
func (l *parallelLog) DeleteRange(first, last uint64) error {
	if err := l.settle(); err != nil {
		return err
	}
	return l.LogStore.DeleteRange(first, last)
}

func sizeOfEntries(logs []*raft.Log) (bytes int) {
	for _, l := range logs {
		bytes += len(l.Data)
	}
	return bytes
}
