package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// disk is a goleveldb storage in memory that remembers each change, so that one
// can see afterwards what a crash at any moment would have left.
type disk struct {
	mu     sync.Mutex
	image  image
	start  image // before the first of changes
	locked bool

	changes []change
}

// image is what is on the disk.
type image struct {
	meta  storage.FileDesc
	files map[storage.FileDesc]*file
}

// file is a file, of which the first synced bytes survive a crash.
type file struct {
	data    []byte
	synced  int
	removed bool // a crash may bring it back
}

// change is one step from one image to the next.
type change func(*image)

func newDisk(t *testing.T, from image) *disk {
	return &disk{image: from.clone(), start: from.clone()}
}

func (i image) clone() image {
	files := make(map[storage.FileDesc]*file, len(i.files))
	for fd, f := range i.files {
		c := *f
		c.data = slices.Clone(f.data)
		files[fd] = &c
	}
	return image{i.meta, files}
}

// do makes a change and remembers it.
func (d *disk) do(c change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c(&d.image)
	d.changes = append(d.changes, c)
}

// moments is how many changes there were so far.
func (d *disk) moments() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.changes)
}

func (d *disk) Lock() (storage.Locker, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked {
		return nil, storage.ErrLocked
	}
	d.locked = true
	return unlocker{d}, nil
}

type unlocker struct{ d *disk }

func (u unlocker) Unlock() {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.d.locked = false
}

func (d *disk) SyncNames() error { return nil } // a crash loses no names here

func (d *disk) Log(string)   {}
func (d *disk) Close() error { return nil }

func (d *disk) SetMeta(fd storage.FileDesc) error {
	d.do(func(i *image) { i.meta = fd })
	return nil
}

func (d *disk) GetMeta() (storage.FileDesc, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.image.meta.Zero() {
		return d.image.meta, os.ErrNotExist
	}
	return d.image.meta, nil
}

func (d *disk) List(types storage.FileType) ([]storage.FileDesc, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var fds []storage.FileDesc
	for fd, f := range d.image.files {
		if fd.Type&types != 0 && !f.removed {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

func (d *disk) Open(fd storage.FileDesc) (storage.Reader, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.image.files[fd]
	if f == nil || f.removed {
		return nil, os.ErrNotExist
	}
	return memoryReader{bytes.NewReader(slices.Clone(f.data))}, nil
}

func (d *disk) Create(fd storage.FileDesc) (storage.Writer, error) {
	d.do(func(i *image) { i.files[fd] = &file{} })
	return &diskWriter{d: d, fd: fd}, nil
}

func (d *disk) Remove(fd storage.FileDesc) error {
	d.do(func(i *image) { i.files[fd].removed = true })
	return nil
}

func (d *disk) Rename(from, to storage.FileDesc) error {
	d.do(func(i *image) { i.files[to] = i.files[from]; delete(i.files, from) })
	return nil
}

type diskWriter struct {
	d      *disk
	fd     storage.FileDesc
	closed bool
}

func (w *diskWriter) Write(b []byte) (int, error) {
	data := slices.Clone(b)
	w.d.do(func(i *image) { i.files[w.fd].data = append(i.files[w.fd].data, data...) })
	return len(b), nil
}

func (w *diskWriter) Sync() error {
	if w.closed {
		return os.ErrClosed
	}
	w.d.do(func(i *image) { i.files[w.fd].synced = len(i.files[w.fd].data) })
	return nil
}

func (w *diskWriter) Close() error { w.closed = true; return nil }

// loss is what a crash does to the bytes of a file that were not synced. It must
// not touch those before synced, and gets the files in the order of their
// numbers; newest says that it is the newest one of its kind.
type loss func(r *rand.Rand, f *file, newest bool)

var losses = map[string]loss{
	// A process that is killed loses nothing.
	"nothing is lost": func(*rand.Rand, *file, bool) {},
	// The harshest power loss.
	"all that was not synced is lost": func(_ *rand.Rand, f *file, _ bool) { f.data = f.data[:f.synced] },
	// Files are written back in any order.
	"only the newest files keep it": func(_ *rand.Rand, f *file, newest bool) {
		if !newest {
			f.data = f.data[:f.synced]
		}
	},
	"each file keeps a part of it": func(r *rand.Rand, f *file, _ bool) {
		f.data = f.data[:f.synced+r.IntN(len(f.data)-f.synced+1)]
		if f.removed && r.IntN(2) == 0 {
			f.removed = false
		}
	},
	// So are the pages of one file, whose size is known at once.
	"pages are lost": func(r *rand.Rand, f *file, _ bool) {
		const page = 4096
		for at := f.synced; at < len(f.data); {
			end := min(at+page-at%page, len(f.data))
			if r.IntN(4) == 0 {
				clear(f.data[at:end])
			}
			at = end
		}
	},
}

// crash gives what is left after a crash in this moment.
func (i image) crash(r *rand.Rand, l loss) image {
	left := i.clone()
	fds := make([]storage.FileDesc, 0, len(left.files))
	newest := map[storage.FileType]int64{}
	for fd, f := range left.files {
		fds = append(fds, fd)
		if !f.removed {
			newest[fd.Type] = max(newest[fd.Type], fd.Num)
		}
	}
	slices.SortFunc(fds, func(a, b storage.FileDesc) int { return int(a.Num - b.Num) })
	for _, fd := range fds {
		f := left.files[fd]
		l(r, f, newest[fd.Type] == fd.Num)
		if f.removed {
			delete(left.files, fd)
		}
		f.synced = len(f.data)
	}
	return left
}

// layer makes the storage that goleveldb gets to see.
type layer func(*disk) storage.Storage

func asSkiffDoes(d *disk) storage.Storage     { return &prefixSafe{Files: d} }
func asGoleveldbDoes(d *disk) storage.Storage { return d }

// openOn opens a state on a disk.
func openOn(d *disk, over layer, o *opt.Options) (*Store, error) {
	stor := over(d)
	db, err := openDB(stor, o)
	if err != nil {
		return nil, err
	}
	return wrap(db, stor), nil
}

// history is the writes of a test: entry i is known by what it leaves.
type history struct {
	o     *opt.Options
	value int // bytes of a value
	large int // bytes of some, above the write buffer
}

const hotKeys = 7

// entry fills the batch of entry i: a key of its own, one that others overwrite,
// one that the next entry deletes, and sometimes a value beyond the write buffer.
func (h history) entry(t tb, i uint64) *Batch {
	var b Batch
	value := bytes.Repeat([]byte{byte(i)}, h.value)
	if i%60 == 0 {
		value = bytes.Repeat([]byte{byte(i)}, h.large)
	}
	b.Put(fmt.Appendf(nil, "own/%06d", i), value, i)
	b.Put(fmt.Appendf(nil, "hot/%d", i%hotKeys), value[:10], i)
	b.Put(fmt.Appendf(nil, "gone/%06d", i), nil, i)
	b.Delete(fmt.Appendf(nil, "gone/%06d", i-1))
	must(t, b.SetApplied(Position{Index: i, Term: 1}))
	return &b
}

// content is what the state holds when it has been applied up to i.
func (h history) content(i uint64) []string {
	want := []string{}
	add := func(key string, version uint64) { want = append(want, fmt.Sprintf("%s@%d", key, version)) }
	if i > 0 {
		add(fmt.Sprintf("gone/%06d", i), i)
	}
	for k := range uint64(hotKeys) {
		for v := i; v > 0; v-- {
			if v%hotKeys == k {
				add(fmt.Sprintf("hot/%d", k), v)
				break
			}
		}
	}
	for v := uint64(1); v <= i; v++ {
		add(fmt.Sprintf("own/%06d", v), v)
	}
	return want
}

// marked is a moment at which Mark had returned.
type marked struct {
	moment int
	index  uint64
}

// run applies the entries after the state's position up to last, and marks now
// and then.
func (h history) run(t tb, d *disk, over layer, last uint64) []marked {
	t.Helper()
	s, err := openOn(d, over, h.o)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	applied, err := s.Applied()
	must(t, err)
	var marks []marked
	for i := applied.Index + 1; i <= last; i++ {
		must(t, s.Write(h.entry(t, i)))
		if i%47 == 0 {
			must(t, s.Mark(Marker{Position: Position{Index: i, Term: 1}, Applied: i}))
			marks = append(marks, marked{d.moments(), i})
		}
	}
	return marks
}

// errHole says that a state is no prefix of the history.
var errHole = errors.New("hole")

// check opens what is left on a disk, and returns the position of the state if it
// is exactly what the entries up to there leave.
func (h history) check(t *testing.T, left image, over layer) (Position, error) {
	t.Helper()
	s, err := openOn(newDisk(t, left), over, h.o)
	if err != nil {
		return Position{}, err
	}
	defer func() { must(t, s.Close()) }()
	applied, err := s.Applied()
	if err != nil {
		return applied, err
	}
	m, err := s.Marker()
	if err != nil {
		return applied, err
	}
	if applied.Index < m.Applied {
		return applied, fmt.Errorf("%w: applied up to %d, marked at %d", errHole, applied.Index, m.Applied)
	}
	it := s.NewIterator(nil, nil)
	defer it.Release()
	want := h.content(applied.Index)
	for i := 0; it.Next(); i++ {
		got := fmt.Sprintf("%s@%d", it.Key(), it.Version())
		if i >= len(want) || got != want[i] {
			return applied, fmt.Errorf("%w: applied up to %d, and pair %d is %s", errHole, applied.Index, i, got)
		}
		if i >= len(want)-int(applied.Index) && len(bytes.Trim(it.Value(), string([]byte{byte(it.Version())}))) > 0 {
			return applied, fmt.Errorf("%w: the value of %s is damaged", errHole, got)
		}
		want[i] = ""
	}
	if err := it.Error(); err != nil {
		return applied, err
	}
	for _, missing := range want {
		if missing != "" {
			return applied, fmt.Errorf("%w: applied up to %d, and %s is missing", errHole, applied.Index, missing)
		}
	}
	return applied, nil
}

// eachCrash calls fn with what a crash leaves, for the first moments of the disk's
// life, about n others, and each loss, until fn returns false.
func (d *disk) eachCrash(r *rand.Rand, n int, fn func(moment int, name string, left image) bool) {
	now := d.start.clone()
	changes := d.changes
	for moment := 0; moment <= len(changes); moment++ {
		if moment > 0 {
			changes[moment-1](&now)
		}
		if moment > 5 && r.IntN(len(changes)) >= n {
			continue
		}
		for name, l := range losses {
			if !fn(moment, name, now.crash(r, l)) {
				return
			}
		}
	}
}

// The small write buffer gives many journals and compactions, the large one
// journals of more than one block.
func histories() map[string]history {
	return map[string]history{
		"many journals":  {&opt.Options{WriteBuffer: 4 << 10, CompactionTableSize: 4 << 10, CompactionL0Trigger: 2}, 200, 8 << 10},
		"large journals": {&opt.Options{WriteBuffer: 70 << 10}, 1000, 72 << 10},
	}
}

// Whatever a crash leaves is the state after some entry, none of which the last
// Mark had covered is missing, and the node goes on from there.
func TestACrashLosesAtMostATailAndNothingBeforeAMark(t *testing.T) {
	for name, h := range histories() {
		t.Run(name, func(t *testing.T) {
			const entries = 190
			r := rand.New(rand.NewPCG(1, 2))
			d := newDisk(t, image{files: map[storage.FileDesc]*file{}})
			marks := h.run(t, d, asSkiffDoes, entries)
			lost := 0
			var again []image
			d.eachCrash(r, 30, func(moment int, loss string, left image) bool {
				applied, err := h.check(t, left, asSkiffDoes)
				if err != nil {
					t.Fatalf("crash after %d of %d changes, %s: %v", moment, len(d.changes), loss, err)
				}
				for _, m := range marks {
					if m.moment <= moment && m.index > applied.Index {
						t.Fatalf("crash after %d of %d changes, %s: applied up to %d, marked at %d", moment, len(d.changes), loss, applied.Index, m.index)
					}
				}
				if applied.Index < entries {
					lost++
				}
				if len(again) < 2 && r.IntN(40) == 0 {
					again = append(again, left)
				}
				return true
			})
			if lost == 0 {
				t.Error("no crash lost anything, so nothing was tested")
			}
			for _, left := range again {
				d := newDisk(t, left)
				h.run(t, d, asSkiffDoes, entries)
				d.eachCrash(r, 5, func(moment int, loss string, left image) bool {
					if _, err := h.check(t, left, asSkiffDoes); err != nil {
						t.Fatalf("second crash after %d of %d changes, %s: %v", moment, len(d.changes), loss, err)
					}
					return true
				})
			}
		})
	}
}

// What prefixSafe does is needed: without it the same crashes make holes.
func TestPlainGoleveldbLeavesHolesAfterACrash(t *testing.T) {
	for _, test := range []struct {
		name          string
		history       string
		write, reopen layer
	}{
		{"journals not synced when the next one begins", "many journals", asGoleveldbDoes, asSkiffDoes},
		{"damaged records skipped", "large journals", asSkiffDoes, asGoleveldbDoes},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := histories()[test.history]
			d := newDisk(t, image{files: map[storage.FileDesc]*file{}})
			h.run(t, d, test.write, 190)
			var hole error
			d.eachCrash(rand.New(rand.NewPCG(1, 2)), 300, func(_ int, _ string, left image) bool {
				_, hole = h.check(t, left, test.reopen)
				return hole == nil
			})
			if !errors.Is(hole, errHole) {
				t.Errorf("got %v, want a hole; is prefixSafe still needed?", hole)
			}
		})
	}
}

// brokenSync fails to sync journals when told to.
type brokenSync struct {
	Files
	broken *bool
}

func (s brokenSync) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := s.Files.Create(fd)
	if fd.Type != storage.TypeJournal {
		return w, err
	}
	return brokenWriter{w, s.broken}, err
}

type brokenWriter struct {
	storage.Writer
	broken *bool
}

var errSync = errors.New("bad disk")

func (w brokenWriter) Sync() error {
	if *w.broken {
		return errSync
	}
	return w.Writer.Sync()
}

// A journal that cannot be synced stops the writes, rather than let later ones
// become durable without it.
func TestAFailedSyncStopsTheWrites(t *testing.T) {
	h := histories()["many journals"]
	d := newDisk(t, image{files: map[storage.FileDesc]*file{}})
	broken := false
	s, err := openOn(d, func(d *disk) storage.Storage {
		return &prefixSafe{Files: brokenSync{d, &broken}}
	}, h.o)
	must(t, err)
	must(t, s.Mark(Marker{}))
	broken = true
	if err := s.Mark(Marker{}); !errors.Is(err, errSync) {
		t.Errorf("Mark: %v", err)
	}
	var failed error
	for i := uint64(1); i <= 100 && failed == nil; i++ {
		failed = s.Write(h.entry(t, i))
	}
	if !errors.Is(failed, errSync) {
		t.Errorf("100 writes of several journals: %v", failed)
	}
	_ = s.Close() // what it says of the broken disk is goleveldb's affair
}
