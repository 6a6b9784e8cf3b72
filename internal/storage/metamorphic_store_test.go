package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"

	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
	"pgregory.net/rapid"
)

// setting is how a store is kept and treated. None of it may show.
type setting struct {
	WriteBuffer  int
	Block, Table int // sizes; 0: goleveldb's default
	Uncompressed bool
	Unfiltered   bool
	Uncached     bool

	Medium medium
	Split  bool        // each edit of a batch comes in a batch of its own
	Before disturbance // what happens before each step that changes something
}

// medium is where the files are, and how a process ends that has them open.
type medium int

const (
	inMemory  medium = iota
	killed           // in memory; losing power, where that may be
	directory        // looked at read-only, in between
)

// disturbance is what happens besides the history.
type disturbance int

const (
	nothing disturbance = iota
	compaction
	reopening // where nobody has a view
	installing
)

// ample is a write buffer that most histories do not fill.
const ample = 64 << 10

// A directory is slow, and not often drawn.
var anyMedium = rapid.Map(rapid.IntRange(0, 60), func(n int) medium {
	if n == 60 {
		return directory
	}
	return medium(n % 2)
})

var anySetting = rapid.Custom(func(t *rapid.T) setting {
	return setting{
		WriteBuffer:  rapid.SampledFrom([]int{ample, 4 << 10, 200}).Draw(t, "write buffer"),
		Block:        rapid.SampledFrom([]int{0, 512, 16}).Draw(t, "block"),
		Table:        rapid.SampledFrom([]int{0, 4 << 10, 200}).Draw(t, "table"),
		Uncompressed: rapid.Bool().Draw(t, "uncompressed"),
		Unfiltered:   rapid.Bool().Draw(t, "unfiltered"),
		Uncached:     rapid.Bool().Draw(t, "uncached"),
		Medium:       anyMedium.Draw(t, "medium"),
		Split:        rapid.Bool().Draw(t, "split"),
		Before:       rapid.SampledFrom([]disturbance{nothing, compaction, reopening, installing}).Draw(t, "before"),
	}
})

func (s setting) options() *opt.Options {
	o := &opt.Options{WriteBuffer: s.WriteBuffer, BlockSize: s.Block, CompactionTableSize: s.Table, CompactionTotalSize: 10 * s.Table}
	if s.Uncompressed {
		o.Compression = opt.NoCompression
	}
	if !s.Unfiltered {
		o.Filter = filter.NewBloomFilter(10)
	}
	if s.Uncached {
		o.BlockCacher, o.OpenFilesCacheCapacity = opt.NoCacher, -1
	}
	return o
}

// subject is a world with a store, of which installs make others.
type subject struct {
	setting
	root   Root
	live   *Store
	stores []*Store // all that are not known to be closed
	names  int
}

const term = 2

func newSubject(t tb, dir string, s setting) *subject {
	t.Helper()
	w := &subject{setting: s, root: &disks{states: map[string]*disk{}}}
	if s.Medium == directory {
		dir, err := os.MkdirTemp(dir, "")
		must(t, err)
		w.root, err = NewDirRoot(dir)
		must(t, err)
	}
	must(t, w.open())
	return w
}

// open opens the current state, or makes one, and removes others.
func (w *subject) open() error {
	current, err := w.root.Current()
	if errors.Is(err, fs.ErrNotExist) {
		current = w.newName()
		err = w.root.SetCurrent(current)
	}
	if err != nil {
		return err
	}
	names, err := w.root.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != current {
			if err := w.root.Remove(name); err != nil {
				return err
			}
		}
	}
	if w.live, err = Open(w.root, current, w.options()); err != nil {
		return err
	}
	w.stores = []*Store{w.live}
	return errors.Join(w.live.Cut()...)
}

func (w *subject) newName() string {
	w.names++
	return NewStateName(strconv.Itoa(w.names))
}

// disturb does what must not make a difference.
func (w *subject) disturb() error {
	switch w.Before {
	case compaction:
		return w.live.CompactRange(util.Range{})
	case reopening:
		if !w.viewed() {
			return w.restart(false)
		}
	case installing:
		return w.move()
	}
	return nil
}

// viewed tells whether there are views or iterators that a reopening would end.
func (w *subject) viewed() bool {
	return slices.ContainsFunc(w.stores, func(s *Store) bool {
		s.viewsMu.Lock()
		defer s.viewsMu.Unlock()
		return len(s.views) > 0
	})
}

// move installs the state as it is, with its marker.
func (w *subject) move() error {
	m, err := w.live.Marker()
	if err != nil {
		return err
	}
	if err := w.transfer(w.now(), ^uint64(0), 100, flawless); err != nil {
		return err
	}
	return w.live.Mark(m)
}

func (w *subject) write(index uint64, edits []edit, marked bool) error {
	if err := w.disturb(); err != nil {
		return err
	}
	var b Batch
	for _, e := range edits {
		if err := e.fill(&b, index); err != nil {
			return err
		}
		if w.Split {
			if err := w.live.Write(&b); err != nil {
				return err
			}
			b = Batch{}
		}
	}
	if err := b.SetApplied(Position{index, term}); err != nil {
		return err
	}
	if !marked {
		return w.live.Write(&b)
	}
	c, err := w.live.Configuration()
	for _, e := range edits {
		if e.what == "configure" {
			c = Configuration{index, []byte(e.value())}
		}
	}
	return errors.Join(err, w.live.WriteMarked(&b, Marker{Position{index, term}, index, c}))
}

func (w *subject) mark(index uint64) error {
	if err := w.disturb(); err != nil {
		return err
	}
	applied, err := w.live.Applied()
	if err != nil {
		return err
	}
	c, err := w.live.Configuration()
	if err != nil {
		return err
	}
	return w.live.Mark(Marker{Position{index, term}, applied.Index, c})
}

func (w *subject) compact(slice util.Range) error {
	return errors.Join(w.disturb(), w.live.CompactRange(slice))
}

func (w *subject) sizes(slices []util.Range) (int, error) {
	sizes, err := w.live.SizeOf(slices)
	return len(sizes), err
}

func (w *subject) system() string {
	id, err := w.live.ClusterID()
	cluster := string(id)
	if id == nil {
		cluster = "none"
	}
	sessions, admitted := map[uint64]string{}, map[string]string{}
	err = errors.Join(err,
		w.live.Sessions(func(id uint64, data []byte) error { sessions[id] = string(data); return nil }),
		w.live.Admitted(func(address string, data []byte) error { admitted[address] = string(data); return nil }))
	if err != nil {
		return err.Error()
	}
	return systemText(cluster, sessions, admitted)
}

func (w *subject) now() reader { return &subjectView{w, nil} }

func (w *subject) view() (reader, error) {
	if err := w.disturb(); err != nil {
		return nil, err
	}
	v, err := w.live.Snapshot()
	if err != nil {
		return nil, err
	}
	return &subjectView{w, v}, nil
}

func (w *subject) install(from reader, index uint64, chunkSize int, flaw flaw) error {
	if err := w.disturb(); err != nil {
		return err
	}
	return w.transfer(from, index, chunkSize, flaw)
}

// transfer moves the state to a new store, as a leader and a follower do together.
func (w *subject) transfer(from reader, index uint64, chunkSize int, flaw flaw) error {
	v, done, err := from.(*subjectView).snapshot()
	if err != nil {
		return err
	}
	defer done()
	applied, err := v.Applied()
	if err != nil {
		return err
	}
	c, err := v.Configuration()
	if err != nil {
		return err
	}
	var stream bytes.Buffer
	if err := v.Export(&stream, chunkSize); err != nil {
		return err
	}
	m := Marker{Position{index, term}, applied.Index, c}
	switch flaw {
	case truncated:
		stream.Truncate(stream.Len() - 1)
	case ofAnotherIndex:
		m.Applied++
	}
	name := w.newName()
	next, err := Import(w.root, name, w.options(), &stream, m)
	if err != nil {
		return errors.Join(err, w.root.Remove(name))
	}
	if err := w.root.SetCurrent(name); err != nil {
		return err
	}
	old := w.live
	w.live = next
	w.stores = append(w.stores, next)
	return old.Retire()
}

func (w *subject) reopen(lossy bool) error { return errors.Join(w.disturb(), w.restart(lossy)) }

// restart ends the process that has the stores open, and begins another one.
func (w *subject) restart(lossy bool) error {
	next := w.root
	if w.Medium == killed {
		next = w.root.(*disks).crash(lossy)
	}
	if err := w.closeAll(); err != nil {
		return err
	}
	w.root = next
	if w.Medium == directory {
		if err := w.inspect(); err != nil {
			return err
		}
	}
	return w.open()
}

func (w *subject) closeAll() error {
	var errs []error
	for _, s := range w.stores {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// inspect looks at what is in the directory.
func (w *subject) inspect() error {
	name, err := w.root.Current()
	if err != nil {
		return err
	}
	s, err := OpenReadOnly(w.root.Place(name), w.options())
	if err != nil {
		return err
	}
	var problems []error
	err = s.VerifyTables(context.Background(), func(err error) { problems = append(problems, err) })
	return errors.Join(append(problems, err, s.Close())...)
}

// close makes sure that only the current state is left.
func (w *subject) close() error {
	names, err := w.root.List()
	if len(names) != 1 {
		err = errors.Join(err, fmt.Errorf("there are states %q", names))
	}
	return errors.Join(err, w.closeAll())
}

// subjectView reads a snapshot, or a store as it is.
type subjectView struct {
	w *subject
	v *Snapshot // nil: as it is
}

// snapshot is a snapshot for a moment.
func (r *subjectView) snapshot() (v *Snapshot, done func(), err error) {
	if r.v != nil {
		return r.v, func() {}, nil
	}
	v, err = r.w.live.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	return v, v.Release, nil
}

func (r *subjectView) get(key []byte) ([]byte, uint64, error) {
	if r.v != nil {
		return r.v.Get(key, nil)
	}
	return r.w.live.Get(key, nil)
}

func (r *subjectView) has(key []byte) (bool, error) {
	if r.v != nil {
		return r.v.Has(key, nil)
	}
	return r.w.live.Has(key, nil)
}

func (r *subjectView) iterator(slice *util.Range) walker {
	if r.v != nil {
		return r.v.NewIterator(slice, nil)
	}
	return r.w.live.NewIterator(slice, nil)
}

func (r *subjectView) positions() (p Position, c Configuration, m Marker, err error) {
	var from interface {
		Applied() (Position, error)
		Configuration() (Configuration, error)
		Marker() (Marker, error)
	} = r.w.live
	if r.v != nil {
		from = r.v
	}
	if p, err = from.Applied(); err != nil {
		return p, c, m, err
	}
	if c, err = from.Configuration(); err != nil {
		return p, c, m, err
	}
	m, err = from.Marker()
	return p, c, m, err
}

// content also makes sure that each pair is sound.
func (r *subjectView) content() (string, int, error) {
	v, done, err := r.snapshot()
	if err != nil {
		return "", 0, err
	}
	defer done()
	applied, err := v.Applied()
	if err != nil {
		return "", 0, err
	}
	pairs := 0
	var unsound error
	sum, err := v.ChecksumEach(context.Background(), func(key, value []byte) {
		if !bytes.Equal(key, keyMarker) {
			pairs++
		}
		unsound = errors.Join(unsound, CheckPair(key, value, applied.Index))
	})
	if err = errors.Join(err, unsound); err != nil {
		return "", 0, err
	}
	return string(sum[:]), pairs, nil
}

func (r *subjectView) release() { r.v.Release() }

// disks is a root in memory that survives the process.
type disks struct {
	memoryRoot
	states map[string]*disk
}

func (d *disks) Open(name string) (Files, error) {
	if d.states[name] == nil {
		d.states[name] = newDisk(nil, image{})
	}
	return d.states[name], nil
}

func (d *disks) Remove(name string) error {
	delete(d.states, name)
	return nil
}

func (d *disks) List() ([]string, error) {
	var names []string
	for name := range d.states {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// crash is what a kill leaves, or with lossy a power loss.
func (d *disks) crash(lossy bool) *disks {
	loss := losses["nothing is lost"]
	if lossy {
		loss = losses["all that was not synced is lost"]
	}
	left := &disks{memoryRoot: memoryRoot{current: d.current}, states: map[string]*disk{}}
	for name, state := range d.states {
		state.mu.Lock()
		left.states[name] = newDisk(nil, state.image.crash(rand.New(rand.NewPCG(0, 0)), loss))
		state.mu.Unlock()
	}
	return left
}
