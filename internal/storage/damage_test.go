package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// aJournal is a journal of records of all sizes, and where each ends.
func aJournal(t testing.TB) (data []byte, ends []int) {
	t.Helper()
	var buf bytes.Buffer
	w := journal.NewWriter(&buf)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 30 {
		record := make([]byte, 1+rnd.IntN(200))
		if i%7 == 3 {
			record = make([]byte, chunkBlock)
		}
		for j := range record {
			record[j] = byte(1 + rnd.IntN(255))
		}
		to, err := w.Next()
		if err == nil {
			_, err = to.Write(record)
		}
		if err = errors.Join(err, w.Flush()); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, buf.Len())
	}
	return buf.Bytes(), ends
}

// endBefore is the end of the last record that is whole in the first n bytes.
func endBefore(ends []int, n int) (end int) {
	for _, e := range ends {
		if e <= n {
			end = e
		}
	}
	return end
}

func TestChunksEnd(t *testing.T) {
	data, ends := aJournal(t)
	if end, _, problem := chunksEnd(data); problem != nil || end != len(data) {
		t.Fatalf("%d of %d, %v", end, len(data), problem)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		at := rnd.IntN(len(data))

		// A crash leaves part of a write, and maybe room for the rest.
		cut := at
		torn := data[:cut]
		if rnd.IntN(2) == 0 {
			cut -= at % sectorSize
			torn = append(bytes.Clone(data[:cut]), make([]byte, 16+rnd.IntN(sectorSize))...)
			if next := endBefore(ends, cut+15); next > cut {
				continue // so little of a record cannot be told from damage
			}
		}
		end, isTorn, problem := chunksEnd(torn)
		if want := endBefore(ends, cut); end != want || problem != nil && !isTorn {
			t.Fatalf("torn at %d of %d: ends at %d, torn %v, %v; want %d", at, len(data), end, isTorn, problem, want)
		}

		flipped := bytes.Clone(data)
		flipped[at] ^= byte(1 + rnd.IntN(255))
		end, isTorn, problem = chunksEnd(flipped)
		if chunkBlock-at%chunkBlock < chunkHeader && problem == nil {
			continue // what a block is filled up with
		}
		if end > at || isTorn || problem == nil {
			t.Fatalf("flipped at %d of %d: ends at %d, torn %v, %v", at, len(data), end, isTorn, problem)
		}
	}
}

// Of the last record, a crash may leave the end without the beginning. In the middle of a
// file that is damage.
func TestChunksEndWithoutTheBeginningOfARecord(t *testing.T) {
	data, ends := aJournal(t)
	tried := 0
	for i, end := range ends[1:] {
		begin := ends[i]
		for chunkBlock-begin%chunkBlock < chunkHeader { // filled up
			begin++
		}
		sector := begin + sectorSize - begin%sectorSize
		if sector-begin < chunkHeader || sector >= end {
			continue
		}
		tried++
		lost := bytes.Clone(data)
		clear(lost[begin:sector])
		if got, torn, problem := chunksEnd(lost[:end]); got != ends[i] || !torn || problem == nil {
			t.Errorf("record %d, the last one: ends at %d, torn %v, %v; want %d", i+1, got, torn, problem, ends[i])
		}
		if end == len(data) {
			continue
		}
		if got, torn, problem := chunksEnd(lost); got != ends[i] || torn || problem == nil {
			t.Errorf("record %d, before others: ends at %d, torn %v, %v; want %d", i+1, got, torn, problem, ends[i])
		}
	}
	if tried < 5 {
		t.Errorf("only %d records were tried", tried)
	}
}

// What chunksEnd accepts, goleveldb reads without an objection.
func FuzzChunksEnd(f *testing.F) {
	data, ends := aJournal(f)
	f.Add(data[:ends[2]])
	f.Add(data[:ends[3]])
	f.Add(data[:ends[2]-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, withChunkSums(data)} {
			wantReadable(t, data)
		}
	})
}

func wantReadable(t *testing.T, data []byte) {
	t.Helper()
	end, torn, problem := chunksEnd(data)
	if end < 0 || end > len(data) || torn && problem == nil {
		t.Fatalf("%d of %d, torn %v, %v", end, len(data), torn, problem)
	}
	r := journal.NewReader(bytes.NewReader(data[:end]), nil, true, true)
	for {
		from, err := r.Next()
		if err != nil {
			if err.Error() != "EOF" {
				t.Fatalf("up to %d of %d: %v", end, len(data), err)
			}
			return
		}
		if _, err := new(bytes.Buffer).ReadFrom(from); err != nil {
			t.Fatalf("up to %d of %d: %v", end, len(data), err)
		}
	}
}

// aState is a state in a directory, with tables and a journal.
func aState(t testing.TB) (dir string, content map[string]string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	content = map[string]string{}
	s, err := OpenDir(dir, &opt.Options{WriteBuffer: 16 << 10, BlockSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 400; i++ {
		var b Batch
		key, value := fmt.Sprintf("key-%d", i%300), fmt.Sprintf("value-%d %s", i, bytes.Repeat([]byte{'v'}, int(i%100)))
		b.Put([]byte(key), []byte(value), i)
		content[key] = value
		if err := errors.Join(b.SetApplied(Position{Index: i, Term: 1}), s.Write(&b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.CompactRange(util.Range{}), s.Mark(Marker{}), s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir, content
}

func userContent(s *Store) (map[string]string, error) {
	content := map[string]string{}
	it := s.NewIterator(nil, &opt.ReadOptions{Strict: opt.StrictOverride}) // which would skip damage
	defer it.Release()
	for it.Next() {
		content[string(it.Key())] = string(it.Value())
	}
	return content, it.Error()
}

func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

func TestOpenReadOnly(t *testing.T) {
	dir, content := aState(t)
	before := filesOf(t, dir)
	s, err := OpenReadOnly(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := userContent(s); err != nil || !maps.Equal(got, content) {
		t.Errorf("%d keys, %v, want %d", len(got), err, len(content))
	}
	if err := s.VerifyTables(t.Context(), func(err error) { t.Error(err) }); err != nil || len(s.Cut()) > 0 {
		t.Error(err, s.Cut())
	}
	var b Batch
	b.Put([]byte("k"), nil, 1)
	if err := s.Write(&b); err == nil {
		t.Error("was written to")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.VerifyTables(ctx, func(error) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := filesOf(t, dir); !maps.Equal(after, before) {
		t.Error("something has changed")
	}

	// Of what a crash has left of a state that was being made.
	for name := range before {
		if !strings.HasPrefix(name, "MANIFEST") {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s, err = OpenReadOnly(dir, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := userContent(s); err != nil || len(got) > 0 {
		t.Errorf("%d keys, %v, want none", len(got), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenReadOnly(filepath.Join(dir, "missing"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no state: %v", err)
	}
}

// A flipped byte in a table is seen by VerifyTables, and whoever reads it gets either
// what was written or an error that names the file.
func TestFlippedBytesInATable(t *testing.T) {
	dir, content := aState(t)
	tables, err := filepath.Glob(filepath.Join(dir, "*.ldb"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	file := tables[len(tables)-1] // an older one may have been compacted, and not be removed yet
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	offsets := []int{}
	for i := range tableFooter {
		offsets = append(offsets, len(data)-1-i)
	}
	for range 40 {
		offsets = append(offsets, rnd.IntN(len(data)))
	}
	for _, at := range offsets {
		flipped := bytes.Clone(data)
		flipped[at] ^= byte(1 + rnd.IntN(255))
		if err := os.WriteFile(file, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenReadOnly(dir, nil)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		seen := 0
		if err := s.VerifyTables(t.Context(), func(err error) { seen++; wantNamed(t, err, file) }); err != nil {
			t.Fatal(err)
		}
		got, err := userContent(s)
		switch {
		case err != nil:
			wantNamed(t, err, file)
		case !maps.Equal(got, content):
			t.Errorf("byte %d: %d keys, want %d", at, len(got), len(content))
		}
		if inFooter := len(data) - at; seen == 0 && (err != nil || inFooter > tableFooter) {
			t.Errorf("byte %d of %d: not seen by VerifyTables: %v", at, len(data), err)
		}
		gets := 0
		for key, value := range content {
			if gets++; gets > 50 { // of others each time
				break
			}
			v, _, err := s.Get([]byte(key), nil)
			if err != nil {
				wantNamed(t, err, file)
			} else if string(v) != value {
				t.Errorf("byte %d: %s is %q, want %q", at, key, v, value)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func wantNamed(t *testing.T, err error, file string) {
	t.Helper()
	var d *DamageError
	if !errors.Is(err, ErrCorrupt) || !errors.As(err, &d) || d.File != file {
		t.Errorf("%v, want ErrCorrupt and %s", err, file)
	}
}

// The files by which a state is found.
func TestDamagedEntryPoint(t *testing.T) {
	dir, _ := aState(t)
	current := filepath.Join(dir, CurrentFile)
	name, err := os.ReadFile(current)
	if err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, strings.TrimSpace(string(name)))
	wantRefused := func(file string) {
		t.Helper()
		for _, open := range []func(string, *opt.Options) (*Store, error){OpenReadOnly, OpenDir} {
			s, err := open(dir, nil)
			if err == nil {
				err = s.Close()
			}
			wantNamed(t, err, file)
		}
	}
	// goleveldb would go back to an older manifest, if there is one.
	old := filepath.Join(dir, "MANIFEST-000999")
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(current+".bak", []byte("MANIFEST-000999\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "MANIFEST-000999", "MANIFEST-000777\n", "MANIFEST-1\n", "LOCK\n"} {
		if err := os.WriteFile(current, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefused(current)
	}
	if err := errors.Join(os.WriteFile(current, name, 0o600), os.Remove(current+".bak"), os.Remove(old)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for at := range data {
		flipped := bytes.Clone(data)
		flipped[at] ^= 1
		if err := os.WriteFile(manifest, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefused(manifest)
	}
	// A record that a crash has torn was never in use.
	if err := os.WriteFile(manifest, append(data, data[:20]...), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenReadOnly(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cut := s.Cut(); len(cut) != 1 {
		t.Errorf("cut: %v", cut)
	} else {
		wantNamed(t, cut[0], manifest)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCheckPair(t *testing.T) {
	session := sessionKey(5)
	for _, test := range []struct {
		name       string
		key, value []byte
		sound      bool
	}{
		{"value", userKey([]byte("k")), EncodeValue(nil, 7), true},
		{"empty key", userKey(nil), EncodeValue(nil, 1), true},
		{"no version", userKey(nil), []byte("short"), false},
		{"version zero", userKey(nil), EncodeValue(nil, 0), false},
		{"version to come", userKey(nil), EncodeValue(nil, 8), false},
		{"session", session, nil, true},
		{"short session", session[:len(session)-1], nil, false},
		{"cluster", keyCluster, nil, true},
		{"applied", keyApplied, []byte("?"), false},
		{"marker", keyMarker, []byte("?"), false},
		{"configuration", keyConfig, []byte("?"), false},
		{"unknown system key", systemKey("what"), nil, false},
		{"unknown space", []byte{9}, EncodeValue(nil, 1), false},
		{"no key", nil, EncodeValue(nil, 1), false},
	} {
		if err := CheckPair(test.key, test.value, 7); (err == nil) != test.sound {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// No table makes what reads it by hand panic, or allocate what it says.
func FuzzVerifyFilters(f *testing.F) {
	dir, _ := aState(f)
	tables, _ := filepath.Glob(filepath.Join(dir, "*.ldb"))
	for _, file := range tables {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[len(data)-600:])
	}
	footer := binary.AppendUvarint(nil, 0)
	footer = append(binary.AppendUvarint(footer, 1<<40), make([]byte, tableFooter)...)
	f.Add(footer[:tableFooter])
	f.Fuzz(func(t *testing.T, data []byte) {
		r := memoryReader{bytes.NewReader(data)}
		_ = verifyFilters(r, storage.FileDesc{Type: storage.TypeTable}, int64(len(data)))
		_ = checkFooter(r, storage.FileDesc{Type: storage.TypeTable})
		_ = eachEntry(data, func(string, []byte) error { return nil })
	})
}
