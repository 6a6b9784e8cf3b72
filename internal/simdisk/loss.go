package simdisk

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	leveldb "github.com/syndtr/goleveldb/leveldb/storage"
)

// Directory is names, each of an inode; the zero inode is none.
type Directory[K, I comparable] struct {
	Now     map[K]I
	synced  map[K]I
	pending []nameChange[K, I] // since the last sync
}

// nameChange gives a name to an inode, or to none.
type nameChange[K, I comparable] struct {
	name  K
	inode I
}

// NewDirectory is a directory in which all names are durable.
func NewDirectory[K, I comparable](names map[K]I) *Directory[K, I] {
	return &Directory[K, I]{Now: names, synced: maps.Clone(names)}
}

// Clone is a copy that changes on its own.
func (d *Directory[K, I]) Clone() *Directory[K, I] {
	return &Directory[K, I]{Now: maps.Clone(d.Now), synced: maps.Clone(d.synced), pending: slices.Clone(d.pending)}
}

func (c nameChange[K, I]) apply(names map[K]I) {
	var none I
	if c.inode == none {
		delete(names, c.name)
	} else {
		names[c.name] = c.inode
	}
}

// Change gives a name to an inode, or removes it.
func (d *Directory[K, I]) Change(name K, inode I) {
	c := nameChange[K, I]{name, inode}
	c.apply(d.Now)
	d.pending = append(d.pending, c)
}

// Sync makes the names durable.
func (d *Directory[K, I]) Sync() {
	for _, c := range d.pending {
		c.apply(d.synced)
	}
	d.pending = nil
}

// After is what a crash leaves of the names that keeps some of the changes.
func (d *Directory[K, I]) After(keep func() bool) map[K]I {
	names := maps.Clone(d.synced)
	for _, c := range d.pending {
		if keep() {
			c.apply(names)
		}
	}
	return names
}

// File is the content of a file.
type File struct {
	Data   []byte // only appended to
	synced []byte // what it was at the last sync
	// truncated: synced is no longer what Data begins with.
	truncated bool
	// holes are pages that are taken for written, and are not.
	holes []hole
}

type hole struct{ from, to int }

// NewFile is a file whose content is durable.
func NewFile(data []byte) *File {
	data = slices.Clip(data)
	return &File{Data: data, synced: data}
}

// Clone is a copy that changes on its own.
func (f *File) Clone() *File {
	c := *f
	c.Data, c.holes = slices.Clip(f.Data), slices.Clip(f.holes)
	return &c
}

// Truncate removes the content.
func (f *File) Truncate() { f.Data, f.truncated, f.holes = nil, true, nil }

// Sync makes the content durable.
func (f *File) Sync() { f.synced, f.truncated = f.written(), false }

// FailSync is a sync that fails, as the kernel does it: each page that could not be
// written is taken for written from then on, and a later sync that succeeds says
// nothing of it.
func (f *File) FailSync(r *rand.Rand) {
	eachPage(f.mustStay(), len(f.Data), func(from, to int) {
		if toss(r) {
			f.holes = append(f.holes, hole{from, to})
		}
	})
}

// written is what would be on the disk if all were written that is not taken for
// written already.
func (f *File) written() []byte {
	if len(f.holes) == 0 {
		return slices.Clip(f.Data)
	}
	data := slices.Clone(f.Data)
	for _, h := range f.holes {
		clear(data[h.from:h.to])
	}
	return data
}

// mustStay is how much of the content no crash takes away.
func (f *File) mustStay() int {
	if f.truncated {
		return 0
	}
	return len(f.synced)
}

// eachPage calls fn with the pages, or parts of pages, between two offsets.
func eachPage(from, to int, fn func(from, to int)) {
	const page = 4096
	for from < to {
		end := min(from+page-from%page, to)
		fn(from, end)
		from = end
	}
}

// Loss is what a crash does to that which was not synced. It promises no more than
// POSIX does: of a file, the bytes survive that were synced, and of a directory the
// names as they were when it was synced; of what came later any part may.
type Loss struct {
	Name string
	// File gives what is left of a file; newest says that it is the newest one of its
	// kind.
	File func(r *rand.Rand, f *File, newest bool) []byte
	// KeepName tells whether a name that was made, changed or removed stays so.
	KeepName func(r *rand.Rand) bool
}

// Losses are the ways of a crash. The first one is that of a process which is killed,
// the second one the harshest power loss.
var Losses = []Loss{
	{"nothing is lost", keepData, keepNames},
	{"all that was not synced is lost", loseData, loseNames},
	{"data is lost", loseData, keepNames},
	{"names are lost", keepData, loseNames},
	// Files and directories are written back in any order, and so are the pages of
	// one file, whose size is known at once.
	{"only the newest files keep their data", keepNewestData, tossNames},
	{"each file keeps a part", keepPart, tossNames},
	{"pages are lost", losePages, tossNames},
}

// SortedFiles are goleveldb's files with these names, but for its CURRENT, in a fixed
// order.
func SortedFiles[I any](names map[leveldb.FileDesc]I) []leveldb.FileDesc {
	fds := slices.DeleteFunc(slices.Collect(maps.Keys(names)), leveldb.FileDesc.Zero)
	slices.SortFunc(fds, func(a, b leveldb.FileDesc) int {
		return cmp.Or(cmp.Compare(a.Num, b.Num), cmp.Compare(a.Type, b.Type))
	})
	return fds
}

// IsNewest tells whether no file of the kind of fd is newer.
func IsNewest[I any](fd leveldb.FileDesc, names map[leveldb.FileDesc]I) bool {
	for other := range names {
		if other.Type == fd.Type && other.Num > fd.Num {
			return false
		}
	}
	return true
}

func toss(r *rand.Rand) bool { return r.IntN(2) == 0 }

func keepNames(*rand.Rand) bool   { return true }
func loseNames(*rand.Rand) bool   { return false }
func tossNames(r *rand.Rand) bool { return toss(r) }

func keepData(_ *rand.Rand, f *File, _ bool) []byte { return f.written() }
func loseData(_ *rand.Rand, f *File, _ bool) []byte { return f.synced }

func keepNewestData(_ *rand.Rand, f *File, newest bool) []byte {
	if newest {
		return f.written()
	}
	return f.synced
}

func keepPart(r *rand.Rand, f *File, _ bool) []byte {
	if f.truncated && toss(r) {
		return f.synced
	}
	from, data := f.mustStay(), f.written()
	return data[:from+r.IntN(len(data)-from+1)]
}

func losePages(r *rand.Rand, f *File, _ bool) []byte {
	if f.truncated && toss(r) {
		return f.synced
	}
	left := slices.Clone(f.written())
	eachPage(f.mustStay(), len(left), func(from, to int) {
		if r.IntN(4) == 0 {
			clear(left[from:to])
		}
	})
	return left
}
