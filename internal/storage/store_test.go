package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// tb is *testing.T, *testing.F or *rapid.T.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// newStore opens a state, on disk or in memory.
func newStore(t *testing.T, path string) *Store {
	t.Helper()
	open := OpenDir
	if path == "" {
		open = func(_ string, o *opt.Options) (*Store, error) { return OpenMemory(o) }
	}
	s, err := open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// write applies a batch made by fill.
func write(t tb, s *Store, fill func(*Batch)) {
	t.Helper()
	var b Batch
	fill(&b)
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func snapshot(t tb, s *Store) *Snapshot {
	t.Helper()
	v, err := s.Snapshot()
	must(t, err)
	return v
}

// list walks it to the end and gives "key=value@version" for each pair.
func list(t tb, it *Iterator) []string {
	t.Helper()
	defer it.Release()
	pairs := []string{}
	for it.Next() {
		pairs = append(pairs, fmt.Sprintf("%s=%s@%d", it.Key(), it.Value(), it.Version()))
	}
	must(t, it.Error())
	return pairs
}

func TestValuesCarryTheVersionThatWroteThem(t *testing.T) {
	s := newStore(t, "")
	write(t, s, func(b *Batch) {
		b.Put([]byte("k"), []byte("first"), 1)
		b.Put([]byte("gone"), []byte("v"), 1)
		b.Put([]byte("empty value"), nil, 1)
		b.Put(nil, []byte("empty key"), 1)
	})
	before := snapshot(t, s)
	defer before.Release()
	write(t, s, func(b *Batch) {
		b.Put([]byte("k"), []byte("second"), 1<<40)
		b.Delete([]byte("gone"))
	})
	now := snapshot(t, s)
	defer now.Release()

	type getter interface {
		Get([]byte) ([]byte, uint64, error)
		Has([]byte) (bool, error)
	}
	for _, test := range []struct {
		name, key string
		from      getter
		value     string
		version   uint64
		err       error
	}{
		{"overwritten", "k", get2{s}, "second", 1 << 40, nil},
		{"overwritten, as of before", "k", get2{before}, "first", 1, nil},
		{"overwritten, as of after", "k", get2{now}, "second", 1 << 40, nil},
		{"deleted", "gone", get2{s}, "", 0, leveldb.ErrNotFound},
		{"deleted, as of before", "gone", get2{before}, "v", 1, nil},
		{"empty value", "empty value", get2{s}, "", 1, nil},
		{"empty key", "", get2{s}, "empty key", 1, nil},
		{"never written", "other", get2{s}, "", 0, leveldb.ErrNotFound},
	} {
		value, version, err := test.from.Get([]byte(test.key))
		if string(value) != test.value || version != test.version || err != test.err {
			t.Errorf("%s: got %q, %d, %v", test.name, value, version, err)
		}
		if err == nil && value == nil {
			t.Errorf("%s: the value is nil", test.name)
		}
		if has, err := test.from.Has([]byte(test.key)); has != (test.err == nil) || err != nil {
			t.Errorf("%s: Has gives %v, %v", test.name, has, err)
		}
	}
}

// get2 leaves out the read options.
type get2 struct {
	g interface {
		Get([]byte, *opt.ReadOptions) ([]byte, uint64, error)
		Has([]byte, *opt.ReadOptions) (bool, error)
	}
}

func (g get2) Get(key []byte) ([]byte, uint64, error) { return g.g.Get(key, nil) }
func (g get2) Has(key []byte) (bool, error)           { return g.g.Has(key, nil) }

func TestWhatGetReturnsIsTheCallers(t *testing.T) {
	s := newStore(t, "")
	write(t, s, func(b *Batch) { b.Put([]byte("k"), []byte("v"), 1) })
	v, _, err := s.Get([]byte("k"), nil)
	must(t, err)
	v[0] = 'x'
	if v, _, err = s.Get([]byte("k"), nil); string(v) != "v" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
}

// Ranges are as goleveldb has them: a nil limit is open-ended, an empty one
// makes the range empty. What the state machine stores is in none.
func TestRanges(t *testing.T) {
	s := newStore(t, "")
	write(t, s, func(b *Batch) {
		for _, key := range []string{"", "\x00", "a", "ab", "b", "\xff", "\xff\xff"} {
			b.Put([]byte(key), nil, 1)
		}
		b.SetClusterID([]byte("id"))
		b.SetSession(1, []byte("session"))
		must(t, b.SetApplied(Position{1, 1}))
	})
	must(t, s.Mark(Marker{}))
	all := []string{"", "\x00", "a", "ab", "b", "\xff", "\xff\xff"}
	for _, test := range []struct {
		name  string
		slice *util.Range
		want  []string
	}{
		{"no range", nil, all},
		{"zero range", &util.Range{}, all},
		{"empty start", &util.Range{Start: []byte{}}, all},
		{"empty limit", &util.Range{Limit: []byte{}}, nil},
		{"empty limit after a start", &util.Range{Start: []byte("a"), Limit: []byte{}}, nil},
		{"start", &util.Range{Start: []byte("ab")}, all[3:]},
		{"start between keys", &util.Range{Start: []byte("aa")}, all[3:]},
		{"limit is left out", &util.Range{Limit: []byte("a")}, all[:2]},
		{"the empty key alone", &util.Range{Limit: []byte{0}}, all[:1]},
		{"both ends", &util.Range{Start: []byte("a"), Limit: []byte("b")}, all[2:4]},
		{"ends the wrong way round", &util.Range{Start: []byte("b"), Limit: []byte("a")}, nil},
		{"high keys", &util.Range{Start: []byte("\xff")}, all[5:]},
		{"prefix", util.BytesPrefix([]byte("a")), all[2:4]},
		{"prefix of high keys", util.BytesPrefix([]byte("\xff")), all[5:]},
	} {
		v := snapshot(t, s)
		for from, it := range map[string]*Iterator{"store": s.NewIterator(test.slice, nil), "snapshot": v.NewIterator(test.slice, nil)} {
			var forward, backward []string
			for it.Next() {
				forward = append(forward, string(it.Key()))
			}
			for ok := it.Last(); ok; ok = it.Prev() {
				backward = append(backward, string(it.Key()))
			}
			must(t, it.Error())
			slices.Reverse(backward)
			if !slices.Equal(forward, test.want) || !slices.Equal(backward, test.want) {
				t.Errorf("%s of the %s: forward %q, backward %q, want %q", test.name, from, forward, backward, test.want)
			}
			it.Release()
		}
		v.Release()
	}
}

func TestSeekGoesByUserKeys(t *testing.T) {
	s := newStore(t, "")
	write(t, s, func(b *Batch) {
		for _, key := range []string{"", "a", "c"} {
			b.Put([]byte(key), []byte("v"), 1)
		}
	})
	it := s.NewIterator(nil, nil)
	defer it.Release()
	for _, test := range []struct {
		to, want string
		found    bool
	}{
		{"", "", true}, {"a", "a", true}, {"b", "c", true}, {"d", "", false},
	} {
		if found := it.Seek([]byte(test.to)); found != test.found || it.Valid() != found || string(it.Key()) != test.want {
			t.Errorf("Seek(%q) = %v, on %q", test.to, found, it.Key())
		}
	}
	if it.Value() != nil || it.Version() != 0 {
		t.Errorf("past the end: %q, version %d", it.Value(), it.Version())
	}
}

func TestSystemValues(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := newStore(t, dir)
	check := func(applied Position, c Configuration, id string, sessions map[uint64]string, m Marker) {
		t.Helper()
		v := snapshot(t, s)
		defer v.Release()
		for from, r := range map[string]interface {
			Applied() (Position, error)
			Configuration() (Configuration, error)
			Marker() (Marker, error)
		}{"store": s, "snapshot": v} {
			gotApplied, err1 := r.Applied()
			gotC, err2 := r.Configuration()
			gotM, err3 := r.Marker()
			must(t, errors.Join(err1, err2, err3))
			if gotApplied != applied || gotC.Index != c.Index || !bytes.Equal(gotC.Data, c.Data) ||
				gotM.Position != m.Position || gotM.Applied != m.Applied || !bytes.Equal(gotM.Configuration.Data, m.Configuration.Data) {
				t.Errorf("%s: applied %v, configuration %v, marker %v", from, gotApplied, gotC, gotM)
			}
		}
		gotID, err := s.ClusterID()
		must(t, err)
		if string(gotID) != id || (gotID == nil) != (id == "") {
			t.Errorf("cluster id %q", gotID)
		}
		got := map[uint64]string{}
		must(t, s.Sessions(func(id uint64, data []byte) error { got[id] = string(data); return nil }))
		if fmt.Sprint(got) != fmt.Sprint(sessions) {
			t.Errorf("sessions %v", got)
		}
	}
	check(Position{}, Configuration{}, "", nil, Marker{})
	applied, c := Position{300, 2}, Configuration{7, []byte("abc")}
	write(t, s, func(b *Batch) {
		must(t, b.SetApplied(applied))
		must(t, b.SetConfiguration(c))
		b.SetClusterID([]byte("id"))
		b.SetSession(1, []byte("one"))
		b.SetSession(1<<60, []byte("two"))
		b.SetSession(5, []byte("five"))
		b.DeleteSession(5)
	})
	m := Marker{Position: Position{301, 3}, Applied: 300, Configuration: c}
	must(t, s.Mark(m))
	sessions := map[uint64]string{1: "one", 1 << 60: "two"}
	check(applied, c, "id", sessions, m)
	must(t, s.Close())
	s = newStore(t, dir)
	check(applied, c, "id", sessions, m)

	stop := errors.New("stop")
	if err := s.Sessions(func(uint64, []byte) error { return stop }); err != stop {
		t.Errorf("Sessions gives %v, want fn's error", err)
	}
}

// What is damaged is told, not returned.
func TestDamagedValuesAreErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		key   []byte
		value []byte
		read  func(*Store) error
	}{
		{"a value without a version", userKey([]byte("k")), []byte("short"), func(s *Store) error { _, _, err := s.Get([]byte("k"), nil); return err }},
		{"a value without a version, in an iterator", userKey([]byte("k")), nil, func(s *Store) error {
			it := s.NewIterator(nil, nil)
			defer it.Release()
			it.Next()
			return it.Error()
		}},
		{"an applied position that does not decode", keyApplied, []byte{0xc1}, func(s *Store) error { _, err := s.Applied(); return err }},
		{"a marker that does not decode", keyMarker, []byte{0xc1}, func(s *Store) error { _, err := s.Marker(); return err }},
		{"a session key of another length", append(slices.Clone(sessions), 1), nil, func(s *Store) error { return s.Sessions(func(uint64, []byte) error { return nil }) }},
	} {
		s := newStore(t, "")
		must(t, s.db.Put(test.key, test.value, nil))
		if err := test.read(s); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", test.name, err)
		}
	}
}

func TestAClosedStoreAnswersErrClosed(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "state"))
	write(t, s, func(b *Batch) { b.Put([]byte("k"), []byte("v"), 1) })
	v := snapshot(t, s)
	it := s.NewIterator(nil, nil)
	viewIt := v.NewIterator(nil, nil)
	if !it.First() || !viewIt.First() {
		t.Fatal("no first key")
	}
	must(t, s.Close())
	must(t, s.Close()) // twice is fine

	_, snapErr := s.Snapshot()
	late := s.NewIterator(nil, nil)
	lateView := v.NewIterator(nil, nil)
	for name, err := range map[string]error{
		"Get":               second(s.Get([]byte("k"), nil)),
		"Has":               first(s.Has([]byte("k"), nil)),
		"Write":             s.Write(&Batch{}),
		"Mark":              s.Mark(Marker{}),
		"Applied":           first(s.Applied()),
		"Marker":            first(s.Marker()),
		"Configuration":     first(s.Configuration()),
		"ClusterID":         first(s.ClusterID()),
		"Sessions":          s.Sessions(func(uint64, []byte) error { return nil }),
		"GetProperty":       first(s.GetProperty("leveldb.stats")),
		"Stats":             s.Stats(&leveldb.DBStats{}),
		"SizeOf":            first(s.SizeOf(nil)),
		"CompactRange":      s.CompactRange(util.Range{}),
		"Snapshot":          snapErr,
		"new iterator":      late.Error(),
		"view Get":          second(v.Get([]byte("k"), nil)),
		"view Has":          first(v.Has([]byte("k"), nil)),
		"view Applied":      first(v.Applied()),
		"view Checksum":     first(v.Checksum(t.Context())),
		"view Export":       v.Export(io.Discard, 1),
		"view new iterator": lateView.Error(),
		"iterator":          it.Error(),
		"view iterator":     viewIt.Error(),
	} {
		if !errors.Is(err, leveldb.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
	for name, i := range map[string]*Iterator{"iterator": it, "view iterator": viewIt, "new iterator": late} {
		if i.Valid() || i.First() || i.Last() || i.Next() || i.Prev() || i.Seek(nil) {
			t.Errorf("%s moves after Close", name)
		}
		if i.Key() != nil || i.Value() != nil || i.Version() != 0 {
			t.Errorf("%s: %q = %q@%d after Close", name, i.Key(), i.Value(), i.Version())
		}
		i.Release()
		i.Release()
	}
	lateView.Release()
	v.Release()
	v.Release()
	if s.Size() != 0 {
		t.Error("a closed store has a size")
	}
}

func first[T any](_ T, err error) error          { return err }
func second[T, U any](_ T, _ U, err error) error { return err }

func TestAReleasedViewAnswersAsGoleveldbDoes(t *testing.T) {
	s := newStore(t, "")
	write(t, s, func(b *Batch) { b.Put([]byte("k"), []byte("v"), 1) })
	v := snapshot(t, s)
	it := v.NewIterator(nil, nil)
	v.Release()
	v.Release()
	if _, _, err := v.Get([]byte("k"), nil); err != leveldb.ErrSnapshotReleased {
		t.Errorf("Get: %v", err)
	}
	if _, err := v.Has([]byte("k"), nil); err != leveldb.ErrSnapshotReleased {
		t.Errorf("Has: %v", err)
	}
	late := v.NewIterator(nil, nil)
	if late.Next() || late.Error() != leveldb.ErrSnapshotReleased {
		t.Errorf("new iterator: %v", late.Error())
	}
	late.Release()
	// An iterator outlives its snapshot.
	if !it.Next() || string(it.Key()) != "k" {
		t.Errorf("iterator after the snapshot's release: %v", it.Error())
	}
	released := 0
	it.SetReleaser(releaser(func() { released++ }))
	it.Release()
	it.Release()
	if it.Next() || it.Error() != leveldb.ErrIterReleased {
		t.Errorf("iterator: %v", it.Error())
	}
	if released != 1 {
		t.Errorf("the releaser was called %d times", released)
	}
	if len(s.views) != 0 {
		t.Errorf("%d views left", len(s.views))
	}
}

type releaser func()

func (r releaser) Release() { r() }

// A state that another one replaced stays readable for those who read it, and
// goes with the last of them.
func TestARetiredStoreLivesUntilItsLastViewIsReleased(t *testing.T) {
	type views struct {
		snap     *Snapshot
		it, walk *Iterator
	}
	order := map[string]func(views) []func(){
		"snapshot first": func(v views) []func() { return []func(){v.snap.Release, v.it.Release, v.walk.Release} },
		"snapshot last":  func(v views) []func() { return []func(){v.walk.Release, v.it.Release, v.snap.Release} },
		"released twice": func(v views) []func() {
			return []func(){v.it.Release, v.it.Release, v.snap.Release, v.snap.Release, v.walk.Release}
		},
	}
	for name, releases := range order {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s := newStore(t, dir)
			write(t, s, func(b *Batch) { b.Put([]byte("a"), []byte("1"), 1); b.Put([]byte("b"), []byte("2"), 2) })
			v := views{snap: snapshot(t, s), walk: s.NewIterator(nil, nil)}
			v.it = v.snap.NewIterator(nil, nil)
			must(t, s.Retire())
			if _, err := s.Snapshot(); err != leveldb.ErrClosed {
				t.Errorf("a snapshot of what is not the state any more: %v", err)
			}
			if err := s.NewIterator(nil, nil).Error(); err != leveldb.ErrClosed {
				t.Errorf("an iterator: %v", err)
			}

			for i, release := range releases(v) {
				if _, err := os.Stat(dir); err != nil {
					t.Fatalf("before release %d: %v", i, err)
				}
				for _, it := range []*Iterator{v.it, v.walk} {
					if !it.released && (!it.First() || string(it.Key()) != "a" || it.Version() != 1) {
						t.Fatalf("before release %d: iterator on %q, %v", i, it.Key(), it.Error())
					}
				}
				release()
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the directory is still there: %v", err)
			}
			if _, err := s.Snapshot(); err != leveldb.ErrClosed {
				t.Errorf("a view after the end: %v", err)
			}
		})
	}
	t.Run("without views", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := newStore(t, dir)
		must(t, s.Retire())
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
	})
	t.Run("closed before its views are released", func(t *testing.T) {
		s := newStore(t, filepath.Join(t.TempDir(), "state"))
		v := snapshot(t, s)
		must(t, s.Retire())
		must(t, s.Close())
		if _, _, err := v.Get(nil, nil); err != leveldb.ErrClosed {
			t.Errorf("got %v", err)
		}
		v.Release()
	})
}

// Whoever reads while the store closes gets right data or ErrClosed. The race
// detector watches.
func TestCloseAndRetireUnderReaders(t *testing.T) {
	for name, end := range map[string]func(*Store) error{"Close": (*Store).Close, "Retire": (*Store).Retire} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, filepath.Join(t.TempDir(), "state"))
			write(t, s, func(b *Batch) {
				for i := range 500 {
					b.Put(fmt.Appendf(nil, "%03d", i), []byte("v"), 1)
				}
			})
			var wg sync.WaitGroup
			underway := make(chan struct{}, 100)
			reader := func(read func() error) {
				wg.Go(func() {
					for i := 0; ; i++ {
						if i == 1 {
							underway <- struct{}{}
						}
						if err := read(); err != nil {
							if err != leveldb.ErrClosed {
								t.Errorf("got %v", err)
							}
							return
						}
					}
				})
			}
			walk := func(it *Iterator) error {
				defer it.Release()
				n := 0
				for it.Next() {
					if key := it.Key(); key != nil && (string(key) != fmt.Sprintf("%03d", n) || it.Version() > 1) {
						t.Errorf("key %d is %q@%d", n, key, it.Version())
					}
					if v := it.Value(); v != nil && string(v) != "v" {
						t.Errorf("value of key %d is %q", n, v)
					}
					n++
				}
				if err := it.Error(); err != nil {
					return err
				}
				if n != 500 {
					t.Errorf("%d keys and no error", n)
				}
				return nil
			}
			readers := []func() error{
				func() error { return walk(s.NewIterator(nil, nil)) },
				func() error { return second(s.Get([]byte("007"), nil)) },
				// Not CompactRange: goleveldb closes the channel on which it gets its answer
				// while that is sent, and recovers from the panic.
				func() error {
					v, err := s.Snapshot()
					if err != nil {
						return err
					}
					defer v.Release()
					return errors.Join(walk(v.NewIterator(nil, nil)))
				},
				func() error {
					v, err := s.Snapshot()
					if err != nil {
						return err
					}
					defer v.Release()
					return v.Export(io.Discard, 100)
				},
				func() error {
					v, err := s.Snapshot()
					if err != nil {
						return err
					}
					defer v.Release()
					return first(v.Checksum(t.Context()))
				},
			}
			for _, read := range readers {
				reader(func() error {
					err := read()
					if errors.Is(err, leveldb.ErrClosed) {
						return leveldb.ErrClosed
					}
					return err
				})
			}
			for range readers {
				<-underway
			}
			must(t, end(s))
			if name == "Retire" {
				must(t, s.Close()) // views come and go, so the last one may never do
			}
			wg.Wait()
		})
	}
}

// What Get returns is the caller's, all of it: it is no part of the cache that others read
// from.
func TestAValueIsTheCallers(t *testing.T) {
	s := newStore(t, t.TempDir())
	var b Batch
	for i := range 100 {
		b.Put(fmt.Appendf(nil, "key %02d", i), fmt.Appendf(nil, "value %02d", i), 7)
	}
	if err := errors.Join(s.Write(&b), s.CompactRange(util.Range{})); err != nil { // from memory to a table
		t.Fatal(err)
	}
	view, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer view.Release()
	for range 2 {
		for i := range 100 {
			for name, get := range map[string]func([]byte, *opt.ReadOptions) ([]byte, uint64, error){"store": s.Get, "view": view.Get} {
				value, version, err := get(fmt.Appendf(nil, "key %02d", i), nil)
				if want := fmt.Sprintf("value %02d", i); err != nil || string(value) != want || version != 7 {
					t.Fatalf("%s: got %q, %d, %v, want %q", name, value, version, err, want)
				}
				clear(value[:cap(value)])
			}
		}
	}
}
