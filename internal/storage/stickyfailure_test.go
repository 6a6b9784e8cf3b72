package storage

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// After a sync that failed the state takes nothing more, even from a disk that
// works again. A kernel reports an error once and drops the pages that it could
// not write; a later sync that succeeds would vouch for them all the same.
func TestASyncThatSucceedsLaterDoesNotVouchForLostWrites(t *testing.T) {
	d := newDisk(t, image{files: map[storage.FileDesc]*file{}})
	broken := false
	s, err := openOn(d, func(d *disk) storage.Storage {
		return &prefixSafe{Files: brokenSync{d, &broken}}
	}, options(nil))
	must(t, err)
	put := func(key string, index uint64) *Batch {
		var b Batch
		b.Put([]byte(key), nil, index)
		must(t, b.SetApplied(Position{Index: index, Term: 1}))
		return &b
	}
	marker := func(index uint64) Marker {
		return Marker{Position: Position{Index: index, Term: 1}, Applied: index}
	}
	must(t, s.Write(put("marked", 1)))
	must(t, s.Mark(marker(1)))
	must(t, s.Write(put("lost", 2)))

	broken = true
	if err := s.Mark(marker(2)); !errors.Is(err, errSync) {
		t.Fatalf("a mark that cannot be synced: %v", err)
	}
	broken = false
	if err := s.Write(put("later", 3)); !errors.Is(err, errSync) {
		t.Errorf("a write after that: %v, want the error of before", err)
	}
	if err := s.Mark(marker(3)); !errors.Is(err, errSync) {
		t.Errorf("a mark after that: %v, want the error of before", err)
	}
	// It can still be read.
	if _, _, err := s.Get([]byte("marked"), nil); err != nil {
		t.Errorf("a read after that: %v", err)
	}

	// What counts after a crash is the marker of before, and what came before it.
	d.mu.Lock()
	left := newDisk(t, d.image.crash(rand.New(rand.NewPCG(1, 2)), losses["all that was not synced is lost"]))
	d.mu.Unlock()
	must(t, s.Close())
	s, err = openOn(left, asSkiffDoes, options(nil))
	must(t, err)
	defer s.Close()
	if m, err := s.Marker(); err != nil || m.Index != 1 {
		t.Errorf("the marker is at %d, %v", m.Index, err)
	}
	if _, _, err := s.Get([]byte("later"), nil); err != leveldb.ErrNotFound {
		t.Errorf("a write after the failure is there: %v", err)
	}
}
