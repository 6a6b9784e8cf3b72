package lossfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

const pageSize = 4096

type page [pageSize]byte

// file is the content of a file. A page that is missing has zeros only.
type file struct {
	size     int64
	pages    map[int64]*page
	reserved int64 // up to where there is space, whether there are pages or not

	// What is durable, where that differs: the size, and pages as they were.
	syncedSize int64
	before     map[int64]*page // nil: it was missing
	// forgotten are pages like those of before which a failed sync has left behind.
	// The kernel takes them for clean: no sync writes them, until they change again.
	forgotten map[int64]*page
}

func newFile() *file {
	return &file{pages: map[int64]*page{}, before: map[int64]*page{}, forgotten: map[int64]*page{}}
}

// read copies what there is from an offset on.
func (f *file) read(b []byte, from int64) int {
	b = b[:max(0, min(int64(len(b)), f.size-from))]
	for done := 0; done < len(b); {
		at := from + int64(done)
		rest := b[done:min(len(b), done+int(pageSize-at%pageSize))]
		if p := f.pages[at/pageSize]; p != nil {
			copy(rest, p[at%pageSize:])
		} else {
			clear(rest)
		}
		done += len(rest)
	}
	return len(b)
}

func (f *file) write(b []byte, to int64) {
	for len(b) > 0 {
		n := copy(f.change(to / pageSize)[to%pageSize:], b)
		b, to = b[n:], to+int64(n)
		f.size = max(f.size, to)
	}
}

// needsSpace tells whether a write needs pages that are neither there nor reserved.
func (f *file) needsSpace(n int, to int64) bool {
	end := to + int64(n)
	for i := to / pageSize; i*pageSize < end; i++ {
		if f.pages[i] == nil && (i+1)*pageSize > f.reserved {
			return true
		}
	}
	return false
}

// change gives a page to write to.
func (f *file) change(i int64) *page {
	f.remember(i)
	if f.pages[i] == nil {
		f.pages[i] = &page{}
	}
	return f.pages[i]
}

// remember keeps what is durable of a page that is about to change.
func (f *file) remember(i int64) {
	if _, changed := f.before[i]; changed {
		return
	}
	if old, forgotten := f.forgotten[i]; forgotten {
		f.before[i] = old
		delete(f.forgotten, i)
		return
	}
	f.before[i] = f.pages[i]
	if p := f.pages[i]; p != nil {
		copied := *p
		f.pages[i] = &copied
	}
}

// truncate sets the size.
func (f *file) truncate(size int64) {
	for i := range f.pages {
		switch start := i * pageSize; {
		case start >= size:
			f.remember(i)
			delete(f.pages, i)
		case start+pageSize > size:
			clear(f.change(i)[size-start:])
		}
	}
	f.size, f.reserved = size, min(f.reserved, size)
}

// reserve makes sure that there is space for what will be written up to an end.
func (f *file) reserve(end int64) { f.reserved = max(f.reserved, end) }

func (f *file) sync() {
	clear(f.before)
	f.syncedSize = f.size
}

// failSync writes some of the pages, and takes all for clean.
func (f *file) failSync(random *rand.Rand) {
	for _, i := range slices.Sorted(maps.Keys(f.before)) {
		if random.IntN(2) == 0 {
			f.forgotten[i] = f.before[i]
		}
	}
	clear(f.before)
}

// changed are the pages that differ from what is durable.
func (f *file) changed() []int64 {
	return slices.Sorted(func(yield func(int64) bool) {
		for _, pages := range []map[int64]*page{f.before, f.forgotten} {
			for i := range pages {
				if !yield(i) {
					return
				}
			}
		}
	})
}

// durable is a page as it was synced last, nil if it was missing.
func (f *file) durable(i int64) *page {
	if old, forgotten := f.forgotten[i]; forgotten {
		return old
	}
	return f.before[i]
}

// put replaces a page that has changed.
func (f *file) put(i int64, p *page) {
	if p == nil {
		delete(f.pages, i)
	} else {
		f.pages[i] = p
	}
}

// settle makes everything durable that is there.
func (f *file) settle() {
	f.truncate(f.size) // no page, and no part of one, is beyond the end
	clear(f.before)
	clear(f.forgotten)
	f.syncedSize = f.size
}
