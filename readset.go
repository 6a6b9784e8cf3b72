package skiff

import (
	"maps"
	"slices"
	"sort"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
)

// readSet is what a transaction has seen of the state that it reads. Keys stand with
// their versions; an interval says in addition that there is no other key in it. All comes
// from one state, so a key is never seen with two versions.
type readSet struct {
	limit, size int // bytes; past the limit nothing is recorded any more
	versions    map[string]uint64
	intervals   []interval // ascending, and none touches another
}

// interval is the keys from lo up to but not including hi.
type interval struct {
	lo, hi string
	open   bool // it has no upper end, and hi means nothing
}

// readOverhead is what a key in a read set counts beyond its length.
const readOverhead = 16

func (s *readSet) tooLarge() bool { return s.size > s.limit }

// key records a key and its version, 0 meaning that it does not exist.
func (s *readSet) key(key string, version uint64) {
	if _, known := s.versions[key]; known || s.tooLarge() {
		return
	}
	s.grow(len(key) + readOverhead)
	if s.tooLarge() {
		return
	}
	if s.versions == nil {
		s.versions = map[string]uint64{}
	}
	s.versions[key] = version
}

// interval records that there are no keys in n but those that were or will be recorded.
func (s *readSet) interval(n interval) {
	if s.tooLarge() || !n.open && n.lo >= n.hi {
		return
	}
	// Those from i up to but not including j overlap or touch it.
	i := sort.Search(len(s.intervals), func(i int) bool { return s.intervals[i].open || s.intervals[i].hi >= n.lo })
	j := sort.Search(len(s.intervals), func(j int) bool { return !n.open && s.intervals[j].lo > n.hi })
	grown := 0
	for _, old := range s.intervals[i:j] {
		grown -= old.cost()
		n = n.join(old)
	}
	s.grow(grown + n.cost())
	if !s.tooLarge() {
		s.intervals = slices.Replace(s.intervals, i, j, n)
	}
}

// join returns the smallest interval that has both.
func (n interval) join(other interval) interval {
	lo := min(n.lo, other.lo)
	if n.open || other.open {
		return interval{lo: lo, open: true}
	}
	return interval{lo: lo, hi: max(n.hi, other.hi)}
}

// cost counts both ends like keys.
func (n interval) cost() int { return len(n.lo) + len(n.hi) + 2*readOverhead }

// grow counts, and forgets all when that is too much.
func (s *readSet) grow(bytes int) {
	if s.size += bytes; s.tooLarge() {
		s.versions, s.intervals = nil, nil
	}
}

// conditions hold as long as nothing that was seen has changed.
func (s *readSet) conditions() []command.Condition {
	var cs []command.Condition
	keys := slices.Sorted(maps.Keys(s.versions))
	single := func(n int) {
		for _, key := range keys[:n] {
			cs = append(cs, command.Condition{Kind: command.CondVersion, Key: []byte(key), Version: s.versions[key]})
		}
		keys = keys[n:]
	}
	for _, n := range s.intervals {
		before, _ := slices.BinarySearch(keys, n.lo)
		single(before)
		inside := len(keys)
		if !n.open {
			inside, _ = slices.BinarySearch(keys, n.hi)
		}
		cs = append(cs, s.unchanged(n, keys[:inside]))
		keys = keys[inside:]
	}
	single(len(keys))
	return cs
}

// unchanged holds as long as an interval has these keys, as far as they exist, and no others.
func (s *readSet) unchanged(n interval, keys []string) command.Condition {
	d := storage.NewRangeDigest()
	for _, key := range keys {
		if version := s.versions[key]; version != 0 {
			d.Add([]byte(key), version)
		}
	}
	c := command.Condition{Kind: command.CondRange, Key: []byte(n.lo), HasLimit: !n.open, Count: d.Count(), Digest: d.Sum()}
	if c.HasLimit {
		c.Limit = []byte(n.hi)
	}
	return c
}
