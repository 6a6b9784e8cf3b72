package skiff

import (
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// retention says how much of the log stays behind a snapshot, and when to take
// one.
type retention struct {
	entries uint64 // that many, at least one,
	bytes   int64  // unless they have more bytes together; the last one always stays
	// grown is how many bytes the log may grow by before a snapshot is due.
	grown int64
}

// heldFactor bounds what stays for the sake of a follower that gets a state: this
// many times retention.bytes. One that is slower than writes come would keep the
// whole log.
const heldFactor = 16

// retainingLog is a log that keeps more than raft asks it to, when raft removes
// what a snapshot covers: raft knows a number of entries, not their size, nor that
// a follower just gets a state after which it needs the entries that follow. raft
// asks to keep one entry, so that a removal that reaches the end of the log is
// none for a snapshot's sake, and obeyed.
type retainingLog struct {
	raft.LogStore
	policy retention
	due    chan struct{} // has a token when the log has grown enough for a snapshot

	mu    sync.Mutex
	grown int64
	// sizes of the entries from index first to the end of the log. Those from before
	// the log was opened are not known.
	first uint64
	sizes []int
	// idle are those of them that raft keeps to itself.
	idle  map[uint64]bool
	holds map[*hold]struct{}
}

func newRetainingLog(store raft.LogStore, policy retention) *retainingLog {
	return &retainingLog{LogStore: store, policy: policy, due: make(chan struct{}, 1), holds: map[*hold]struct{}{}, idle: map[uint64]bool{}}
}

// StoreLog implements raft.LogStore.
func (l *retainingLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *retainingLog) StoreLogs(logs []*raft.Log) error {
	if err := l.LogStore.StoreLogs(logs); err != nil || len(logs) == 0 {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if logs[0].Index != l.first+uint64(len(l.sizes)) {
		l.first, l.sizes = logs[0].Index, nil
	}
	for _, entry := range logs {
		l.sizes = append(l.sizes, len(entry.Data))
		delete(l.idle, entry.Index) // of an entry that this one replaces
		if !isForState(entry) {
			l.idle[entry.Index] = true
		}
		l.grown += int64(len(entry.Data))
	}
	if l.grown >= l.policy.grown {
		l.grown = 0
		select {
		case l.due <- struct{}{}:
		default:
		}
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (l *retainingLog) DeleteRange(first, last uint64) error {
	end, err := l.LastIndex()
	if err != nil {
		return err
	}
	if last < end {
		if last, err = l.cut(first, last, end); err != nil || last < first {
			return err
		}
	}
	if err := l.LogStore.DeleteRange(first, last); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch known := l.first + uint64(len(l.sizes)); {
	case last < end && len(l.sizes) > 0 && last >= l.first:
		l.sizes = append([]int(nil), l.sizes[last+1-l.first:]...)
		l.first = last + 1
	case last >= end && first > l.first && first < known:
		l.sizes = l.sizes[:first-l.first]
	case last >= end:
		l.first, l.sizes = 0, nil
	}
	maps.DeleteFunc(l.idle, func(index uint64, _ bool) bool { return first <= index && index <= last })
	return nil
}

// forState tells whether raft gives an entry to the state machine, without reading it
// where that can be avoided.
func (l *retainingLog) forState(index uint64) (bool, error) {
	l.mu.Lock()
	if index >= l.first && index < l.first+uint64(len(l.sizes)) {
		defer l.mu.Unlock()
		return !l.idle[index], nil
	}
	l.mu.Unlock()
	var entry raft.Log
	err := survive(func() error { return l.GetLog(index, &entry) })
	return isForState(&entry), err
}

// cut is how far the log, which goes to end, may be removed, last at most.
func (l *retainingLog) cut(first, last, end uint64) (uint64, error) {
	kept, bytes := end, int64(0) // entries from kept on stay
	for index := end; index >= first && end-index < l.policy.entries; index-- {
		size, err := l.size(index)
		if err != nil {
			return 0, err
		}
		if bytes += size; bytes > l.policy.bytes && index < end {
			break
		}
		kept = index
	}
	return l.cutForHolds(first, min(last, kept-1), end)
}

// cutForHolds leaves what followers need that just get a state.
func (l *retainingLog) cutForHolds(first, last, end uint64) (uint64, error) {
	from, held := l.held(first)
	if !held || from > last {
		return last, nil
	}
	var bytes int64
	for index := end; index >= max(from, first); index-- {
		size, err := l.size(index)
		if err != nil {
			return 0, err
		}
		if bytes += size; bytes > heldFactor*l.policy.bytes {
			return last, nil
		}
	}
	return from - 1, nil
}

func (l *retainingLog) size(index uint64) (int64, error) {
	l.mu.Lock()
	if index >= l.first && index < l.first+uint64(len(l.sizes)) {
		defer l.mu.Unlock()
		return int64(l.sizes[index-l.first]), nil
	}
	l.mu.Unlock()
	var entry raft.Log
	err := l.GetLog(index, &entry)
	return int64(len(entry.Data)), err
}

// known is how many bytes the entries from index first to last have, if that is
// known without reading them.
func (l *retainingLog) known(first, last uint64) (bytes int64, ok bool) {
	if first > last {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if first < l.first || last >= l.first+uint64(len(l.sizes)) {
		return 0, false
	}
	for index := first; index <= last; index++ {
		bytes += int64(l.sizes[index-l.first])
	}
	return bytes, true
}

// total is how many bytes all entries have, as far as that is known.
func (l *retainingLog) total() (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, size := range l.sizes {
		bytes += int64(size)
	}
	return bytes
}

// hold keeps the entries from index on. Those after it are needed.
type hold struct {
	log   *retainingLog
	index uint64
	used  time.Time // guarded by log.mu
}

// hold keeps the entries from index on until it is released. It is void when it
// has not been used for longer than a transfer may stall.
func (l *retainingLog) hold(index uint64) *hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := &hold{log: l, index: index, used: time.Now()}
	l.holds[h] = struct{}{}
	return h
}

// use says that the follower makes progress.
func (h *hold) use() {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.used = time.Now()
}

// release may be called again.
func (h *hold) release() {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	delete(h.log.holds, h)
}

// held is the lowest index that is held, in a log that begins with the entry at first.
// This node may have got a state itself since it sent one: what it held went with the
// rest of its log. Just the entry at the index of a hold is not needed.
func (l *retainingLog) held(first uint64) (lowest uint64, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for h := range l.holds {
		switch {
		case time.Since(h.used) > 2*installStall || h.index+1 < first:
			delete(l.holds, h)
		case !any || h.index < lowest:
			lowest, any = h.index, true
		}
	}
	return lowest, any
}
