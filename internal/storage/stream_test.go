package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/golang/snappy"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"pgregory.net/rapid"
)

func checksum(t tb, s *Store) [sha256.Size]byte {
	t.Helper()
	v := snapshot(t, s)
	defer v.Release()
	sum, err := v.Checksum(context.Background())
	must(t, err)
	return sum
}

func export(t tb, s *Store, chunkSize int) []byte {
	t.Helper()
	v := snapshot(t, s)
	defer v.Release()
	var stream bytes.Buffer
	must(t, v.Export(&stream, chunkSize))
	return stream.Bytes()
}

var (
	sampleConfig = Configuration{Index: 3, Data: []byte("members")}
	sampleMarker = Marker{Position: Position{Index: 12, Term: 2}, Applied: 10, Configuration: sampleConfig}
)

// sampleStore has data of all kinds, applied up to 10.
func sampleStore(t *testing.T, path string) *Store {
	t.Helper()
	s := newStore(t, path)
	write(t, s, func(b *Batch) {
		for i := range uint64(10) {
			b.Put(fmt.Appendf(nil, "key-%d", i), bytes.Repeat([]byte{byte(i)}, int(i*5)), i+1)
		}
		b.Put(nil, []byte("empty key"), 3)
		b.SetSession(4, []byte("session"))
		b.SetClusterID([]byte("id"))
		must(t, b.SetConfiguration(sampleConfig))
		must(t, b.SetApplied(Position{Index: 10, Term: 2}))
	})
	must(t, s.Mark(Marker{Position: Position{Index: 5, Term: 1}, Applied: 5})) // the sender's own
	return s
}

func TestWhatIsImportedEqualsWhatWasExported(t *testing.T) {
	for _, chunkSize := range []int{1, 64, 1 << 20} {
		for _, path := range []string{"", "disk"} {
			t.Run(fmt.Sprintf("chunks of %d to %q", chunkSize, path), func(t *testing.T) {
				root := NewMemoryRoot()
				if path != "" {
					root = dirRoot(t.TempDir())
				}
				s := sampleStore(t, "")
				got, err := Import(root, path, nil, iotest.OneByteReader(bytes.NewReader(export(t, s, chunkSize))), sampleMarker)
				must(t, err)
				defer func() { must(t, got.Close()) }()
				if checksum(t, got) != checksum(t, s) {
					t.Error("checksums differ")
				}
				want := list(t, s.NewIterator(nil, nil))
				if pairs := list(t, got.NewIterator(nil, nil)); !slices.Equal(pairs, want) {
					t.Errorf("got %q, want %q", pairs, want)
				}
				m, err := got.Marker()
				must(t, err)
				if fmt.Sprint(m) != fmt.Sprint(sampleMarker) {
					t.Errorf("the marker is %v, want the receiver's, %v", m, sampleMarker)
				}
				c, err := got.Configuration()
				must(t, err)
				applied, err := got.Applied()
				must(t, err)
				if fmt.Sprint(c) != fmt.Sprint(sampleConfig) || applied != (Position{10, 2}) {
					t.Errorf("configuration %v, applied %v", c, applied)
				}
			})
		}
	}
}

func TestAnExportShowsOneMoment(t *testing.T) {
	s := sampleStore(t, "")
	v := snapshot(t, s)
	defer v.Release()
	want := checksum(t, s)
	write(t, s, func(b *Batch) {
		b.Delete([]byte("key-1"))
		b.Put([]byte("new"), nil, 11)
		must(t, b.SetApplied(Position{11, 2}))
	})
	var stream bytes.Buffer
	must(t, v.Export(&stream, 100))
	got, err := Import(NewMemoryRoot(), "", nil, &stream, sampleMarker)
	must(t, err)
	defer got.Close()
	if checksum(t, got) != want {
		t.Error("the export is not of the view's moment")
	}
}

func TestImportRefusesWhatDoesNotFitTheMarker(t *testing.T) {
	stream := export(t, sampleStore(t, ""), 100)
	for _, test := range []struct {
		name string
		m    Marker
	}{
		{"applied before", Marker{Position: Position{12, 2}, Applied: 9}},
		{"applied after", Marker{Position: Position{12, 2}, Applied: 11}},
		{"a position before what was applied", Marker{Position: Position{9, 2}, Applied: 10}},
		{"nothing", Marker{}},
	} {
		if _, err := Import(NewMemoryRoot(), "", nil, bytes.NewReader(stream), test.m); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", test.name, err)
		}
	}
}

// No damage to a stream goes unnoticed.
func TestImportRefusesEachFlippedByteAndEachTruncation(t *testing.T) {
	stream := export(t, sampleStore(t, ""), 100)
	r := rand.New(rand.NewPCG(1, 2))
	for at := 0; at < len(stream); at += 1 + r.IntN(5) {
		damaged := slices.Clone(stream)
		damaged[at] ^= 1 << r.IntN(8)
		if s, err := Import(NewMemoryRoot(), "", nil, bytes.NewReader(damaged), sampleMarker); err == nil {
			t.Errorf("byte %d of %d was flipped, and nobody noticed", at, len(stream))
			must(t, s.Close())
		}
		if s, err := Import(NewMemoryRoot(), "", nil, bytes.NewReader(stream[:at]), sampleMarker); err == nil {
			t.Errorf("%d of %d bytes were enough", at, len(stream))
			must(t, s.Close())
		}
	}
}

// chunk is a chunk of a stream.
func chunk(content ...byte) []byte {
	var b bytes.Buffer
	_ = (&chunkWriter{w: &b}).write(content)
	return b.Bytes()
}

// packedChunk is one whose snappy block is made by hand.
func packedChunk(packed ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(packed)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(packed, castagnoli))
	return append(b, packed...)
}

func TestImportRefusesHostileStreams(t *testing.T) {
	end := func(pairs uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, chunkHead), pairs) }
	for name, stream := range map[string][]byte{
		"a chunk above the limit":     append(binary.BigEndian.AppendUint32(nil, uint32(snappy.MaxEncodedLen(maxChunk)+1)), 0, 0, 0, 0),
		"a block of 4 GB":             packedChunk(0xff, 0xff, 0xff, 0xff, 0x0f),
		"a block of 60 MB in 8 bytes": packedChunk(0x80, 0x8e, 0xce, 0x1c, 0, 'k', 0, 0),
		"a block that does not end":   packedChunk(5, 0, 'k'),
		"a block of garbage":          packedChunk(bytes.Repeat([]byte{0x80}, 12)...),
		"a chunk of 4 GB":             {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"a key beyond its chunk":      append(chunk(5, 'k', 0), end(1)...),
		"a length that never ends":    append(chunk(bytes.Repeat([]byte{0x80}, 12)...), end(1)...),
		"a length of 2^64-1":          append(chunk(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), end(1)...),
		"a key without a value":       append(chunk(1, 'k'), end(1)...),
		"fewer pairs than announced":  end(1),
		// Whoever decodes it by recursion overflows the stack, which no recover can stop.
		"an applied index that nests": append(chunk(append(appendBytes(nil, keyApplied),
			appendBytes(nil, append([]byte{0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 20<<20)...))...)...), end(1)...),
		"an applied index of garbage": append(chunk(append(appendBytes(nil, keyApplied), 1, 0xc1)...), end(1)...),
	} {
		if _, err := Import(NewMemoryRoot(), "", nil, bytes.NewReader(stream), Marker{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

// A chunk that is announced and does not come costs what comes.
func TestImportNeedsMemoryForWhatArrives(t *testing.T) {
	stream := binary.BigEndian.AppendUint32(nil, maxChunk)
	stream = append(stream, make([]byte, 1000)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := (&chunkReader{r: bytes.NewReader(stream)}).next()
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("no error")
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes allocated for %d that came", got, len(stream))
	}
}

var errDisk = errors.New("broken pipe")

func TestAnExportTellsWhenItCannotBeWritten(t *testing.T) {
	s := sampleStore(t, "")
	v := snapshot(t, s)
	defer v.Release()
	full := len(export(t, s, 50))
	for room := range full {
		if err := v.Export(iotestWriter(room), 50); !errors.Is(err, errDisk) {
			t.Fatalf("after %d of %d bytes: %v", room, full, err)
		}
	}
}

// iotestWriter takes n bytes.
func iotestWriter(n int) *limitedWriter { return &limitedWriter{n} }

type limitedWriter struct{ room int }

func (w *limitedWriter) Write(b []byte) (int, error) {
	if len(b) > w.room {
		return 0, errDisk
	}
	w.room -= len(b)
	return len(b), nil
}

func FuzzImport(f *testing.F) {
	s, err := OpenMemory(nil)
	must(f, err)
	write(f, s, func(b *Batch) {
		b.Put([]byte("k"), []byte("v"), 1)
		must(f, b.SetApplied(Position{10, 2}))
	})
	stream := export(f, s, 1)
	must(f, s.Close())
	f.Add(stream)
	f.Add(stream[:len(stream)-1])
	f.Add(make([]byte, chunkHead+8))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		// The checksums are put right, so that the fuzzer gets past them.
		for _, stream := range [][]byte{b, withChecksums(b)} {
			s, err := Import(NewMemoryRoot(), "", nil, bytes.NewReader(stream), sampleMarker)
			if err != nil {
				continue
			}
			applied, err := s.Applied()
			must(t, err)
			if applied.Index != sampleMarker.Applied {
				t.Errorf("imported at index %d", applied.Index)
			}
			// Whatever was let in can be read and sent on.
			if got, err := Import(NewMemoryRoot(), "", nil, bytes.NewReader(export(t, s, 10)), sampleMarker); err != nil {
				t.Error(err)
			} else {
				must(t, got.Close())
			}
			must(t, s.Close())
		}
	})
}

func withChecksums(b []byte) []byte {
	b = slices.Clone(b)
	for rest := b; len(rest) >= 8; {
		n := int(binary.BigEndian.Uint32(rest))
		if n > len(rest)-8 {
			break
		}
		binary.BigEndian.PutUint32(rest[4:], crc32.Checksum(rest[8:8+n], castagnoli))
		rest = rest[8+n:]
	}
	return b
}

type pair struct {
	key, value string
	version    uint64
}

// The checksum is of content: not of how it came to be written, nor of what each
// node keeps for itself.
func TestTheChecksumIsOfContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pair {
			return pair{
				rapid.StringN(0, 3, -1).Draw(t, "key"), rapid.StringN(0, 3, -1).Draw(t, "value"),
				rapid.Uint64Range(1, 5).Draw(t, "version"),
			}
		}), 1, 20).Draw(t, "pairs")
		batched := func(label string, o *opt.Options) *Store {
			s, err := OpenMemory(o)
			must(t, err)
			var b Batch
			for _, p := range pairs {
				b.Put([]byte(p.key), []byte("overwritten"), p.version+1)
				b.Put([]byte(p.key), []byte(p.value), p.version)
				b.Put([]byte("gone"), nil, 1)
				b.Delete([]byte("gone"))
				if rapid.Bool().Draw(t, label) {
					must(t, s.Write(&b))
					b = Batch{}
				}
			}
			must(t, s.Write(&b))
			return s
		}
		a, b := batched("cut", nil), batched("cut", &opt.Options{WriteBuffer: 100})
		defer a.Close()
		defer b.Close()
		want := checksum(t, a)
		if checksum(t, b) != want {
			t.Fatal("the same content, written otherwise, has another checksum")
		}
		write(t, b, func(batch *Batch) {
			must(t, batch.SetApplied(Position{7, 7}))
			must(t, batch.SetConfiguration(sampleConfig))
		})
		must(t, b.Mark(sampleMarker))
		if checksum(t, b) != want {
			t.Fatal("position, membership or marker are part of the checksum")
		}
	})
}

func TestTheChecksumTellsEachDifference(t *testing.T) {
	sum := func(change func(*Batch)) [sha256.Size]byte {
		s := sampleStore(t, "")
		write(t, s, change)
		return checksum(t, s)
	}
	seen := map[[sha256.Size]byte]string{}
	for name, change := range map[string]func(*Batch){
		"none":              func(*Batch) {},
		"a value":           func(b *Batch) { b.Put([]byte("key-1"), []byte("x"), 2) },
		"a version":         func(b *Batch) { b.Put([]byte("key-1"), bytes.Repeat([]byte{1}, 5), 3) },
		"a key more":        func(b *Batch) { b.Put([]byte("key-10"), nil, 1) },
		"a key less":        func(b *Batch) { b.Delete([]byte("key-1")) },
		"the empty key":     func(b *Batch) { b.Delete(nil) },
		"a session":         func(b *Batch) { b.SetSession(4, []byte("other")) },
		"a session less":    func(b *Batch) { b.DeleteSession(4) },
		"the cluster's id":  func(b *Batch) { b.SetClusterID([]byte("other")) },
		"a byte moved over": func(b *Batch) { b.Delete([]byte("key-1")); b.Put([]byte("key-1\x01"), bytes.Repeat([]byte{1}, 4), 2) },
	} {
		got := sum(change)
		if other, known := seen[got]; known {
			t.Errorf("%s and %s have one checksum", name, other)
		}
		seen[got] = name
	}
}

func TestAChecksumEndsWithItsContext(t *testing.T) {
	s := sampleStore(t, "")
	v := snapshot(t, s)
	defer v.Release()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := v.Checksum(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestTheRangeDigestTellsKeysAndVersions(t *testing.T) {
	digest := func(pairs ...pair) string {
		d := NewRangeDigest()
		for _, p := range pairs {
			d.Add([]byte(p.key), p.version)
		}
		if len(d.Sum()) != 16 {
			t.Errorf("a digest of %d bytes", len(d.Sum()))
		}
		return string(d.Sum())
	}
	seen := map[string]string{}
	for name, sum := range map[string]string{
		"nothing":         digest(),
		"an empty key":    digest(pair{"", "", 1}),
		"a key":           digest(pair{"ab", "", 1}),
		"another version": digest(pair{"ab", "", 2}),
		"two keys":        digest(pair{"a", "", 1}, pair{"b", "", 1}),
		"another order":   digest(pair{"b", "", 1}, pair{"a", "", 1}),
	} {
		if other, known := seen[sum]; known {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[sum] = name
	}
}

// Versions shows versions in the place of values.
func TestVersionsAreIteratedAsValues(t *testing.T) {
	s := newStore(t, "")
	write(t, s, func(b *Batch) { b.Put([]byte("k"), []byte("v"), 300) })
	it := Versions(s.NewIterator(nil, nil))
	defer it.Release()
	if !it.Next() || string(it.Key()) != "k" || !bytes.Equal(it.Value(), EncodeValue(nil, 300)) {
		t.Errorf("got %q = %x", it.Key(), it.Value())
	}
}

// A state that cannot be imported stays behind closed, for the caller to remove.
func TestAFailedImportReleasesItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := Import(dirRoot(filepath.Dir(dir)), filepath.Base(dir), nil, bytes.NewReader(nil), Marker{}); err == nil {
		t.Fatal("no error")
	}
	must(t, os.RemoveAll(dir))
	s := newStore(t, dir)
	if _, _, err := s.Get(nil, nil); err != leveldb.ErrNotFound {
		t.Errorf("got %v", err)
	}
}
