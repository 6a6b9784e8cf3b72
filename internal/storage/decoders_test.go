package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
	"github.com/vmihailenco/msgpack/v5"
)

// The targets for the streams of states, for tables and for what chunks a journal has are
// beside the tests of those: FuzzImport, FuzzVerifyFilters, FuzzChunksEnd.

// What a pair of a state says is read back as it was, or is said to be damaged: by
// whoever checks the state as by whoever reads it.
func FuzzCheckPair(f *testing.F) {
	encoded := func(v any) []byte {
		b, err := msgpack.Marshal(v)
		must(f, err)
		return b
	}
	f.Add(keyApplied, encoded(&Position{300, 2}), uint64(300))
	f.Add(keyConfig, encoded(&sampleConfig), uint64(300))
	f.Add(keyMarker, encoded(&sampleMarker), uint64(300))
	f.Add(keyCluster, []byte("id"), uint64(300))
	f.Add(sessionKey(5), []byte("session"), uint64(300))
	f.Add(append(bytes.Clone(admitted), "address"...), []byte("identity"), uint64(300))
	f.Add(userKey([]byte("k")), EncodeValue([]byte("v"), 300), uint64(300))
	f.Fuzz(func(t *testing.T, key, value []byte, applied uint64) {
		err := CheckPair(key, value, applied)
		switch {
		case IsUserKey(key):
			_, version, damage := splitValue(value)
			if sound := damage == nil && 0 < version && version <= applied; sound != (err == nil) {
				t.Errorf("version %d, %v, at index %d: %v", version, damage, applied, err)
			}
			if damage == nil && !bytes.Equal(EncodeValue(DecodeValue(value)), value) {
				t.Errorf("%x does not become what it was", value)
			}
		case bytes.Equal(key, keyApplied):
			sameSystemValue[Position](t, value, err)
		case bytes.Equal(key, keyConfig):
			sameSystemValue[Configuration](t, value, err)
		case bytes.Equal(key, keyMarker):
			sameSystemValue[Marker](t, value, err)
		}
	})
}

// sameSystemValue reads a system value, of which CheckPair has given an error or none.
func sameSystemValue[T any](t *testing.T, data []byte, checked error) {
	t.Helper()
	read := func(data []byte) (T, error) {
		return getSystem[T](func([]byte) ([]byte, error) { return data, nil }, keyApplied)
	}
	value, err := read(data)
	if (err == nil) != (checked == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("reading gives %v, checking %v", err, checked)
	}
	if err != nil {
		return
	}
	encoded, err := msgpack.Marshal(&value)
	must(t, err)
	again, err := read(encoded)
	must(t, err)
	if got, err := msgpack.Marshal(&again); err != nil || !bytes.Equal(got, encoded) {
		t.Errorf("%+v became %+v, %v", value, again, err)
	}
}

// goleveldb gets to see records in a row, from the beginning of a journal, which it can
// read to their end; and what is left of a journal loses nothing more.
func FuzzIntactPrefix(f *testing.F) {
	d := newDisk(nil, image{files: map[storage.FileDesc]*file{}})
	s, err := openOn(d, asSkiffDoes, nil)
	must(f, err)
	for i := uint64(1); i <= 5; i++ {
		must(f, s.Write(history{value: 20}.entry(f, i)))
	}
	fds, err := d.List(storage.TypeJournal)
	must(f, err)
	data := d.image.files[fds[0]].data
	must(f, s.Close())
	f.Add(data)
	f.Add(data[:len(data)-5])
	f.Add(append(bytes.Clone(data), data...))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksums are put right, so that the fuzzer gets past them.
		for _, data := range [][]byte{data, withChunkSums(data)} {
			whole, _ := intactRecords(t, data)
			next := uint64(0)
			for r := journal.NewReader(bytes.NewReader(whole), nil, true, true); ; {
				record, err := nextRecord(r)
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				seq := binary.LittleEndian.Uint64(record)
				if next != 0 && seq != next {
					t.Errorf("record %d where %d should follow", seq, next)
				}
				next = seq + uint64(binary.LittleEndian.Uint32(record[8:]))
			}
			if again, cut := intactRecords(t, whole); !bytes.Equal(again, whole) || len(cut) > 0 {
				t.Errorf("of %d bytes, %d are left: %v", len(whole), len(again), cut)
			}
		}
	})
}

// withChunkSums gives the chunks of a journal the checksums that they should have.
func withChunkSums(data []byte) []byte {
	data = bytes.Clone(data)
	for at := 0; at+chunkHeader <= len(data); {
		left := chunkBlock - at%chunkBlock
		size := chunkHeader + int(binary.LittleEndian.Uint16(data[at+4:]))
		if left < chunkHeader || size > left {
			at += left
			continue
		}
		if at+size > len(data) {
			break
		}
		binary.LittleEndian.PutUint32(data[at:], util.NewCRC(data[at+6:at+size]).Value())
		at += size
	}
	return data
}

func intactRecords(t tb, data []byte) (whole []byte, cut []error) {
	t.Helper()
	s := &prefixSafe{}
	whole, err := s.intactPrefix(storage.FileDesc{Type: storage.TypeJournal, Num: 1}, data)
	must(t, err)
	return whole, s.cut
}

// CURRENT names a manifest that is there, to the byte, or is damaged.
func FuzzReadCurrent(f *testing.F) {
	for _, content := range []string{"MANIFEST-000001\n", "MANIFEST-000002\n", "MANIFEST-1\n", "MANIFEST-000001", "../x\n", ""} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "MANIFEST-000001"), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, CurrentFile), content, 0o600))
		fd, err := readCurrent(dir)
		named := string(content) == "MANIFEST-000001\n"
		if named != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q gives %v, %v", content, fd, err)
		}
		if fd, ok := parseFileName(string(content)); ok && fd.String() != string(content) {
			t.Errorf("%q is taken for %v", content, fd)
		}
	})
}
