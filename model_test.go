package skiff_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
	"pgregory.net/rapid"

	"github.com/skiffdb/skiff"
)

// TestModel does the same random things to a goleveldb and to a database here,
// and expects the same results: values, errors (by ==), and how iterators move.
//
// goleveldb locks writers out while a transaction is open, so nothing else is
// written then; what ours make of concurrent writes is tested elsewhere.
func TestModel(t *testing.T) {
	t.Parallel()
	t.Run("single node", func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		checkModel(t, 150, func(testing.TB) []*skiff.DB { return handles(c) })
	})
	t.Run("any of three nodes", func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		checkModel(t, 15, func(testing.TB) []*skiff.DB { return handles(c) })
	})
	t.Run("client", func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		checkModel(t, 100, func(testing.TB) []*skiff.DB { return []*skiff.DB{dial(t, c, c.addrs...)} })
	})
}

// handles returns one on each node.
func handles(c *cluster) []*skiff.DB {
	var dbs []*skiff.DB
	for i := range c.nodes {
		dbs = append(dbs, c.node(i).DB())
	}
	return dbs
}

// checkModel makes n runs, or as many as -rapid.checks says.
func checkModel(t *testing.T, n int, open func(testing.TB) []*skiff.DB) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set(strconv.Itoa(n)); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(checks.DefValue) }()
	}
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt, open(t))
		defer m.end()
		rt.Repeat(map[string]func(*rapid.T){
			"Put": m.put, "Delete": m.delete, "Write": m.write,
			"Get and Has": m.get, "NewIterator": m.newIterator, "move": m.move, "move on": m.move,
			"GetSnapshot": m.getSnapshot, "read snapshot": m.readSnapshot, "Release": m.releaseSnapshot,
			"OpenTransaction": m.openTransaction, "read transaction": m.readTransaction,
			"Commit": m.commit, "Discard": m.discard,
			"CompactRange": m.compactRange, "SizeOf": m.sizeOf, "GetProperty": m.getProperty,
			"SetReadOnly": m.setReadOnly, "Close": m.close,
		})
	})
}

// model is a goleveldb and a database here that should be alike, and what is open
// on both.
type model struct {
	theirs *leveldb.DB
	ours   []*skiff.DB // handles on one database: each call may use any
	batch  leveldb.Batch

	iterators []*both[iterator.Iterator]
	snapshots []*both[levelSnapshot]
	tr        *both[levelTransaction] // the open one, or the one that was last
	trOpen    bool
}

// both is a thing of goleveldb's and the same of ours.
type both[T any] struct{ theirs, ours T }

func newModel(t *rapid.T, ours []*skiff.DB) *model {
	// Without it goleveldb loses keys, see TestReusedFileNumberGivesOldBlocks.
	theirs, err := leveldb.Open(storage.NewMemStorage(), &opt.Options{BlockCacheEvictRemoved: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := wipe(ours[0]); err != nil {
		t.Fatal(err)
	}
	return &model{theirs: theirs, ours: ours}
}

func wipe(db *skiff.DB) error {
	var b leveldb.Batch
	it := db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		b.Delete(it.Key())
	}
	return errors.Join(it.Error(), db.Write(&b, nil))
}

func (m *model) end() {
	m.releaseAll()
	_ = m.theirs.Close() // a run may have closed them already
	for _, db := range m.ours {
		_ = db.Close()
	}
}

func (m *model) releaseAll() {
	for _, it := range m.iterators {
		it.theirs.Release()
		it.ours.Release()
	}
	if m.trOpen {
		m.tr.theirs.Discard()
		m.tr.ours.Discard()
		m.trOpen = false
	}
	for _, s := range m.snapshots {
		s.theirs.Release()
		s.ours.Release()
	}
}

// db is one of our handles.
func (m *model) db(t *rapid.T) *skiff.DB { return rapid.SampledFrom(m.ours).Draw(t, "handle") }

// writers are what can be written to.
func (m *model) writers(t *rapid.T) (theirs, ours levelWriter) {
	if m.trOpen || m.tr != nil && rapid.IntRange(0, 5).Draw(t, "ended transaction") == 0 {
		return m.tr.theirs, m.tr.ours
	}
	return m.theirs, m.db(t)
}

// Few keys, so that they meet; all lengths from nil on.
var (
	modelByte  = rapid.SampledFrom([]byte{0, 1, 'a', 'b', 0xff})
	modelKey   = rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(modelByte, 0, 3))
	modelValue = rapid.OneOf(
		rapid.Just([]byte(nil)),
		rapid.SliceOfN(rapid.Byte(), 0, 5),
		// Some fill a piece that a remote iterator fetches.
		rapid.Map(modelByte, func(b byte) []byte { return bytes.Repeat([]byte{b}, 10<<10) }),
	)
	modelRange = rapid.Custom(func(t *rapid.T) *util.Range {
		if rapid.IntRange(0, 2).Draw(t, "all") == 0 {
			return nil
		}
		return &util.Range{Start: modelKey.Draw(t, "start"), Limit: modelKey.Draw(t, "limit")}
	})
)

func (m *model) put(t *rapid.T) {
	theirs, ours := m.writers(t)
	key, value := modelKey.Draw(t, "key"), modelValue.Draw(t, "value")
	want := theirs.Put(key, value, nil)
	// The caller may do what he likes with what he passed.
	key, value = slices.Clone(key), slices.Clone(value)
	got := ours.Put(key, value, nil)
	scribble(key, value)
	sameError(t, want, got)
}

func (m *model) delete(t *rapid.T) {
	theirs, ours := m.writers(t)
	key := modelKey.Draw(t, "key")
	want := theirs.Delete(key, nil)
	key = slices.Clone(key)
	got := ours.Delete(key, nil)
	scribble(key)
	sameError(t, want, got)
}

// write uses one batch again and again, sometimes with what is in it from before.
func (m *model) write(t *rapid.T) {
	theirs, ours := m.writers(t)
	if rapid.Bool().Draw(t, "reset") {
		m.batch.Reset()
	}
	for range rapid.IntRange(0, 5).Draw(t, "ops") {
		if key := modelKey.Draw(t, "key"); rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
			m.batch.Delete(key)
		} else {
			m.batch.Put(key, modelValue.Draw(t, "value"))
		}
	}
	b := &m.batch
	if rapid.IntRange(0, 9).Draw(t, "nil batch") == 0 {
		b = nil
	}
	sameError(t, theirs.Write(b, nil), ours.Write(b, nil))
}

func (m *model) get(t *rapid.T) { sameReads(t, m.theirs, m.db(t)) }

func sameReads(t *rapid.T, theirs, ours levelReader) {
	key := modelKey.Draw(t, "key")
	wantValue, wantErr := theirs.Get(key, nil)
	for range 2 {
		got, err := ours.Get(slices.Clone(key), nil)
		sameError(t, wantErr, err)
		if !bytes.Equal(got, wantValue) || (got == nil) != (err != nil) {
			t.Fatalf("got value %q, want %q", got, wantValue)
		}
		scribble(got) // it is the caller's
	}
	wantHas, wantErr := theirs.Has(key, nil)
	has, err := ours.Has(key, nil)
	sameError(t, wantErr, err)
	if has != wantHas {
		t.Fatalf("has %q: %v, want %v", key, has, wantHas)
	}
}

func openIterators(t *rapid.T, theirs, ours levelReader) *both[iterator.Iterator] {
	r := modelRange.Draw(t, "range")
	it := &both[iterator.Iterator]{theirs: theirs.NewIterator(sane(r), nil)}
	if r != nil {
		r = &util.Range{Start: slices.Clone(r.Start), Limit: slices.Clone(r.Limit)}
	}
	it.ours = ours.NewIterator(r, nil)
	if r != nil {
		scribble(r.Start, r.Limit)
		r.Start, r.Limit = nil, []byte{}
	}
	sameError(t, it.theirs.Error(), it.ours.Error())
	return it
}

// sane keeps goleveldb from panicking when a range ends before it begins.
func sane(r *util.Range) *util.Range {
	if r == nil || r.Limit == nil || bytes.Compare(r.Start, r.Limit) <= 0 {
		return r
	}
	return &util.Range{Start: r.Start, Limit: r.Start}
}

func (m *model) newIterator(t *rapid.T) {
	it := openIterators(t, m.theirs, m.db(t))
	m.iterators = append(m.iterators, it)
	moveSome(t, it)
}

// move goes on with an iterator opened earlier, which sees the state of then.
func (m *model) move(t *rapid.T) {
	if len(m.iterators) == 0 {
		t.Skip("none")
	}
	it := rapid.SampledFrom(m.iterators).Draw(t, "iterator")
	moveSome(t, it)
	if rapid.IntRange(0, 5).Draw(t, "release") == 0 {
		it.theirs.Release()
		it.ours.Release()
		moveSome(t, it)
		it.theirs.Release()
		it.ours.Release()
	}
}

func moveSome(t *rapid.T, it *both[iterator.Iterator]) {
	for range rapid.IntRange(1, 8).Draw(t, "moves") {
		var step func(iterator.Iterator) bool
		name := rapid.SampledFrom([]string{"First", "Last", "Next", "Next", "Prev", "Prev", "Seek"}).Draw(t, "move")
		switch name {
		case "First":
			step = iterator.Iterator.First
		case "Last":
			step = iterator.Iterator.Last
		case "Next":
			step = iterator.Iterator.Next
		case "Prev":
			step = iterator.Iterator.Prev
		case "Seek":
			key := modelKey.Draw(t, "key")
			step = func(i iterator.Iterator) bool {
				k := slices.Clone(key)
				defer scribble(k)
				return i.Seek(k)
			}
		}
		want, got := step(it.theirs), step(it.ours)
		if got != want {
			t.Fatalf("%s: %v, want %v", name, got, want)
		}
		samePlace(t, it.theirs, it.ours)
	}
}

func samePlace(t *rapid.T, theirs, ours iterator.Iterator) {
	sameError(t, theirs.Error(), ours.Error())
	if want, got := theirs.Valid(), ours.Valid(); got != want {
		t.Fatalf("valid: %v, want %v", got, want)
	}
	if want, got := theirs.Key(), ours.Key(); !bytes.Equal(got, want) || (got == nil) != (want == nil) {
		t.Fatalf("key %s, want %s", nilOr(got), nilOr(want))
	}
	if want, got := theirs.Value(), ours.Value(); !bytes.Equal(got, want) || (got == nil) != (want == nil) {
		t.Fatalf("value %s, want %s", nilOr(got), nilOr(want))
	}
}

func nilOr(b []byte) string {
	if b == nil {
		return "nil"
	}
	return fmt.Sprintf("%.40q", b)
}

func (m *model) getSnapshot(t *rapid.T) {
	theirs, wantErr := m.theirs.GetSnapshot()
	ours, err := m.db(t).GetSnapshot()
	sameError(t, wantErr, err)
	if err == nil {
		m.snapshots = append(m.snapshots, &both[levelSnapshot]{theirs, ours})
	}
}

// anySnapshot may have been released already.
func (m *model) anySnapshot(t *rapid.T) *both[levelSnapshot] {
	if len(m.snapshots) == 0 {
		t.Skip("none")
	}
	return rapid.SampledFrom(m.snapshots).Draw(t, "snapshot")
}

func (m *model) readSnapshot(t *rapid.T) {
	s := m.anySnapshot(t)
	sameReads(t, s.theirs, s.ours)
	it := openIterators(t, s.theirs, s.ours)
	m.iterators = append(m.iterators, it)
	moveSome(t, it)
}

func (m *model) releaseSnapshot(t *rapid.T) {
	s := m.anySnapshot(t)
	s.theirs.Release()
	s.ours.Release()
	sameReads(t, s.theirs, s.ours)
}

func (m *model) openTransaction(t *rapid.T) {
	if m.trOpen {
		t.Skip("goleveldb has one at a time")
	}
	theirs, wantErr := m.theirs.OpenTransaction()
	ours, err := m.db(t).OpenTransaction()
	sameError(t, wantErr, err)
	if err == nil {
		m.tr, m.trOpen = &both[levelTransaction]{theirs, ours}, true
	}
}

// readTransaction reads what the transaction has written, or that it has ended.
func (m *model) readTransaction(t *rapid.T) {
	if m.tr == nil {
		t.Skip("none")
	}
	sameReads(t, m.tr.theirs, m.tr.ours)
	it := openIterators(t, m.tr.theirs, m.tr.ours)
	defer it.theirs.Release()
	defer it.ours.Release()
	if it.theirs.Error() == nil { // ours has more to say in its error, and keeps to it
		moveSome(t, it)
	}
}

func (m *model) commit(t *rapid.T) {
	if m.tr == nil {
		t.Skip("none")
	}
	want, got := m.tr.theirs.Commit(), m.tr.ours.Commit()
	sameError(t, want, got)
	m.trOpen = m.trOpen && want != nil
}

func (m *model) discard(t *rapid.T) {
	if m.tr == nil {
		t.Skip("none")
	}
	m.tr.theirs.Discard()
	m.tr.ours.Discard()
	m.trOpen = false
}

func (m *model) compactRange(t *rapid.T) {
	if m.trOpen {
		t.Skip("goleveldb would wait for the transaction")
	}
	var r util.Range
	if drawn := modelRange.Draw(t, "range"); drawn != nil {
		r = *drawn
	}
	sameError(t, m.theirs.CompactRange(*sane(&r)), m.db(t).CompactRange(r))
}

// sizeOf cannot give the same sizes: what is stored differs.
func (m *model) sizeOf(t *rapid.T) {
	var ranges []util.Range
	for _, r := range rapid.SliceOfN(modelRange, 0, 3).Draw(t, "ranges") {
		if r != nil {
			ranges = append(ranges, *r)
		}
	}
	want, wantErr := m.theirs.SizeOf(ranges)
	got, err := m.db(t).SizeOf(ranges)
	sameError(t, wantErr, err)
	if len(got) != len(want) || (got == nil) != (want == nil) {
		t.Fatalf("sizes %v, want as many as in %v", got, want)
	}
	for _, size := range got {
		if size < 0 {
			t.Fatalf("sizes %v", got)
		}
	}
}

func (m *model) getProperty(t *rapid.T) {
	name := rapid.SampledFrom([]string{
		"", "stats", "leveldb.", "leveldb.stats", "leveldb.num-files-at-level0", "leveldb.num-files-at-level",
	}).Draw(t, "name")
	_, want := m.theirs.GetProperty(name)
	_, got := m.db(t).GetProperty(name)
	sameError(t, want, got)
	var theirs, ours leveldb.DBStats
	sameError(t, m.theirs.Stats(&theirs), m.db(t).Stats(&ours))
}

func (m *model) setReadOnly(t *rapid.T) {
	if m.trOpen || rapid.IntRange(0, 4).Draw(t, "not often") > 0 {
		t.Skip("goleveldb would wait for the transaction")
	}
	want := m.theirs.SetReadOnly()
	for _, db := range m.ours {
		sameError(t, want, db.SetReadOnly())
	}
}

// close ends the run but for the errors that follow.
func (m *model) close(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "not often") > 0 {
		t.Skip("the run would be too short")
	}
	// goleveldb is not safe to close with iterators open.
	for _, it := range m.iterators {
		it.theirs.Release()
		it.ours.Release()
	}
	want := m.theirs.Close()
	for _, db := range m.ours {
		sameError(t, want, db.Close())
	}
	m.trOpen = false // Close discards it
}

// sameError expects goleveldb's errors themselves. Its error for a transaction that
// has ended has no name, and so another one here.
func sameError(t *rapid.T, want, got error) {
	t.Helper()
	if want != nil && want.Error() == "leveldb: transaction already closed" {
		if !errors.Is(got, skiff.ErrTransactionDone) {
			t.Fatalf("got error %v, want ErrTransactionDone", got)
		}
		return
	}
	if got != want {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func scribble(slices ...[]byte) {
	for _, s := range slices {
		for i := range s {
			s[i] ^= 0x55
		}
	}
}
