package walfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
)

const segmentSize = 16 << 10

// opened is an open log.
type opened struct {
	*wal.WAL
	meta *Meta
}

func open(dir string, readOnly bool) (opened, error) {
	meta := &Meta{ReadOnly: readOnly}
	log, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentFiler(NewFiler(dir, readOnly)),
		wal.WithSegmentSize(segmentSize), wal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		return opened{}, errors.Join(err, meta.Close())
	}
	last, err := log.LastIndex()
	if err == nil {
		err = meta.VerifyEnd(last)
	}
	return opened{log, meta}, err
}

func (o opened) close(t *testing.T) {
	t.Helper()
	last, err := o.LastIndex()
	if err := errors.Join(err, o.Close(), o.meta.SetClosed(last), o.meta.Close()); err != nil {
		t.Fatal(err)
	}
}

// crash closes the log without noting where it ends.
func (o opened) crash(t *testing.T) {
	t.Helper()
	if err := errors.Join(o.Close(), o.meta.Close()); err != nil {
		t.Fatal(err)
	}
}

func (o opened) append(t *testing.T, first, last uint64) {
	t.Helper()
	for i := first; i <= last; i += 2 { // two in a batch
		var logs []*raft.Log
		for j := i; j <= min(i+1, last); j++ {
			logs = append(logs, &raft.Log{Index: j, Term: 1, Data: bytes.Repeat([]byte{byte(j)}, 50+int(j%30))})
		}
		if err := o.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
}

func mustOpen(t *testing.T, dir string, readOnly bool) opened {
	t.Helper()
	o, err := open(dir, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// entries reads a log.
func entries(t *testing.T, o opened) (first, last uint64) {
	t.Helper()
	first, err := o.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err = o.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		if err := o.GetLog(i, &l); err != nil || l.Index != i {
			t.Fatalf("entry %d of %d to %d: %v", i, first, last, err)
		}
	}
	return first, last
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[n.Name()] = string(data)
	}
	return files
}

// raft-wal by itself cannot read the entries before a removed end after a restart.
func TestEndRemovedAndOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	o := mustOpen(t, dir, false)
	o.append(t, 1, 20)
	for _, err := range []error{o.DeleteRange(15, 20), o.DeleteRange(1, 3)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	o.append(t, 15, 300) // segments
	o.close(t)
	for _, readOnly := range []bool{true, false} {
		o := mustOpen(t, dir, readOnly)
		if first, last := entries(t, o); first != 4 || last != 300 {
			t.Errorf("read-only %v: entries %d to %d", readOnly, first, last)
		}
		o.close(t)
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	dir := t.TempDir()
	o := mustOpen(t, dir, true)
	if first, last := entries(t, o); first != 0 || last != 0 {
		t.Errorf("of nothing: entries %d to %d", first, last)
	}
	o.close(t)
	if files := tree(t, dir); len(files) > 0 {
		t.Errorf("has made %d files", len(files))
	}
	o = mustOpen(t, dir, false)
	o.append(t, 1, 300)
	o.close(t)
	// A crash has left a segment that is not in use.
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d-%016x.wal", 1, 99)), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	o = mustOpen(t, dir, true)
	if first, last := entries(t, o); first != 1 || last != 300 {
		t.Errorf("entries %d to %d", first, last)
	}
	o.close(t)
	if after := tree(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("something has changed")
	}
}

// After any flipped byte the log is refused, or has all its entries, or gives an
// error that names the entry; of a log that was not closed it may be the last two
// batches that are gone.
func TestFlippedBytesCostNoEntry(t *testing.T) {
	for _, closed := range []bool{true, false} {
		dir := t.TempDir()
		o := mustOpen(t, dir, false)
		o.append(t, 1, 100)
		if closed {
			o.close(t)
		} else {
			o.crash(t)
		}
		segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
		if err != nil || len(segments) != 1 {
			t.Fatal(segments, err)
		}
		data, err := os.ReadFile(segments[0])
		if err != nil {
			t.Fatal(err)
		}
		used := len(bytes.TrimRight(data, "\x00"))
		refused := 0
		for at := 0; at < used; at += 11 {
			damaged := bytes.Clone(data)
			damaged[at] ^= byte(1 + at%255)
			if err := os.WriteFile(segments[0], damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			o, err := open(dir, true)
			if err != nil {
				refused++
				if !errors.Is(err, ErrDamaged) && !errors.Is(err, wal.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Base(segments[0])) {
					t.Errorf("byte %d: %v", at, err)
				}
				if o.WAL != nil {
					o.crash(t)
				}
				continue
			}
			if _, last := entries(t, o); last < 100 && (closed || last < 96) {
				t.Fatalf("byte %d of %d: the log ends at %d, and nothing was said", at, used, last)
			}
			o.crash(t)
		}
		if refused < used/22 {
			t.Errorf("%d of %d refused: this test proves nothing", refused, used/11)
		}
	}
}

// What a crash leaves after the last batch is no damage.
func TestTornBatch(t *testing.T) {
	dir := t.TempDir()
	o := mustOpen(t, dir, false)
	o.append(t, 1, 20)
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	o.append(t, 21, 22)
	o.crash(t)
	after, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	from, to := len(bytes.TrimRight(before, "\x00")), len(bytes.TrimRight(after, "\x00"))
	for at := from; at < to; at++ {
		torn := slices.Concat(after[:at], before[at:])
		if at%2 == 0 { // the beginning is lost
			torn = slices.Concat(before[:at], after[at:])
		}
		if err := os.WriteFile(segments[0], torn, 0o600); err != nil {
			t.Fatal(err)
		}
		o := mustOpen(t, dir, true)
		if _, last := entries(t, o); last != 20 && last != 22 {
			t.Errorf("torn at %d: the log ends at %d", at, last)
		}
		o.crash(t)
	}
}

// A log that was not closed in order is written once more, metadata included, and has
// what it had. One that was is left alone.
func TestSettle(t *testing.T) {
	for _, inOrder := range []bool{false, true} {
		dir := t.TempDir()
		o, err := open(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.StoreLog(&raft.Log{Index: 1, Data: []byte("one")}); err != nil {
			t.Fatal(err)
		}
		if inOrder {
			o.close(t)
		} else {
			o.crash(t)
		}
		if o, err = open(dir, false); err != nil {
			t.Fatal(err)
		}
		commits, content := o.commits(t), readFile(t, o.meta.tail)
		if err := o.meta.Settle(1); err != nil {
			t.Fatal(err)
		}
		if again := o.commits(t) != commits; again == inOrder {
			t.Errorf("closed in order: %t; committed again: %t", inOrder, again)
		}
		if !bytes.Equal(readFile(t, o.meta.tail), content) {
			t.Error("the segment has changed")
		}
		o.crash(t)
	}
}

// commits is how many there were in the metadata.
func (o opened) commits(t *testing.T) (n int) {
	t.Helper()
	if err := o.meta.db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestDamagedMetadata(t *testing.T) {
	for name, damage := range map[string]func(*bbolt.Bucket) error{
		"state":       func(b *bbolt.Bucket) error { return b.Put(keyState, []byte("{}")) },
		"no state":    func(b *bbolt.Bucket) error { return b.Delete(keyState) },
		"no sum":      func(b *bbolt.Bucket) error { return b.Delete(keySum) },
		"last index":  func(b *bbolt.Bucket) error { return b.Put(keyClosed, make([]byte, 12)) },
		"unknown key": func(b *bbolt.Bucket) error { return b.Put([]byte("n"), nil) },
		"bucket": func(b *bbolt.Bucket) error {
			return errors.Join(b.Tx().DeleteBucket([]byte(metadb.MetaBucket)), b.Tx().DeleteBucket([]byte(metadb.StableBucket)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := mustOpen(t, dir, false)
			o.append(t, 1, 10)
			o.close(t)
			db, err := bbolt.Open(filepath.Join(dir, metadb.FileName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { return damage(tx.Bucket([]byte(metadb.MetaBucket))) })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			wantRefused(t, dir)
		})
	}
	t.Run("file", func(t *testing.T) {
		dir := t.TempDir()
		o := mustOpen(t, dir, false)
		o.append(t, 1, 10)
		o.close(t)
		if err := os.Remove(filepath.Join(dir, metadb.FileName)); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, dir)
	})
}

func wantRefused(t *testing.T, dir string) {
	t.Helper()
	before := tree(t, dir)
	for _, readOnly := range []bool{true, false} {
		if _, err := open(dir, readOnly); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), metadb.FileName) {
			t.Errorf("read-only %v: %v, want ErrDamaged", readOnly, err)
		}
	}
	if after := tree(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("something has changed")
	}
}

func FuzzVerifyTail(f *testing.F) {
	dir := f.TempDir()
	o, err := open(dir, false)
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(4) {
		if err := o.StoreLog(&raft.Log{Index: i + 1, Data: make([]byte, 10)}); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(o.Close(), o.meta.Close()); err != nil {
		f.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	data, err := os.ReadFile(segments[0])
	if err != nil {
		f.Fatal(err)
	}
	data = bytes.TrimRight(data, "\x00")
	f.Add(data)
	for range 20 {
		flipped := bytes.Clone(data)
		flipped[rand.IntN(len(data))] ^= 1
		f.Add(flipped)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		end, err := intact(bytes.NewReader(data))
		if err != nil || end < 0 || end > int64(len(data)) {
			t.Fatalf("whole up to %d of %d, %v", end, len(data), err)
		}
		if _, err := batchAfter(io.NewSectionReader(bytes.NewReader(data), end, 1<<40)); err != nil {
			t.Fatal(err)
		}
	})
}

// A state is what its encoding says, under its checksum only, and so is the last index.
func FuzzDecodeState(f *testing.F) {
	state := types.PersistentState{NextSegmentID: 3, Segments: []types.SegmentInfo{{ID: 1, BaseIndex: 1, MinIndex: 1, MaxIndex: 9, SizeLimit: segmentSize}, {ID: 2, BaseIndex: 10}}}
	data, err := json.Marshal(state)
	if err != nil {
		f.Fatal(err)
	}
	last := binary.BigEndian.AppendUint64(nil, 9)
	f.Add(data, seal(keySum, data), []byte{})
	f.Add(data, seal(keySum, data), append(last, seal(keyClosed, last)...))
	f.Fuzz(func(t *testing.T, data, sum, closed []byte) {
		if _, _, err := decodeState(data, sum, closed); err == nil && !bytes.Equal(sum, seal(keySum, data)) {
			t.Errorf("%q was taken with checksum %x", data, sum)
		}
		closed = bytes.Clone(closed[:min(8, len(closed))])
		if len(closed) == 8 {
			closed = append(closed, seal(keyClosed, closed)...)
		}
		state, last, err := decodeState(data, seal(keySum, data), closed)
		if err != nil {
			return
		}
		if len(closed) == 12 && last != binary.BigEndian.Uint64(closed) || len(closed) == 0 && last != 0 {
			t.Errorf("%x is taken for %d", closed, last)
		}
		encoded, err := json.Marshal(state)
		if err != nil {
			t.Skip() // a time that has no text
		}
		again, _, err := decodeState(encoded, seal(keySum, encoded), nil)
		if got, _ := json.Marshal(again); err != nil || !bytes.Equal(got, encoded) {
			t.Errorf("%s became %s, %v", encoded, got, err)
		}
	})
}
