package storage

import (
	"math/rand/v2"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// Whatever a crash leaves can be read without changing anything, however many journals
// there are, and however many of those are in tables already.
func TestReadingOnlyShowsWhatACrashHasLeft(t *testing.T) {
	for name, h := range histories() {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t, image{files: map[storage.FileDesc]*file{}})
			h.run(t, d, asSkiffDoes, 190)
			journals := map[int]int{} // how often there were how many
			d.eachCrash(rand.New(rand.NewPCG(1, 2)), 10, func(moment int, loss string, left image) bool {
				if left.meta.Zero() {
					return true // it had not become a state
				}
				onDisk := newDisk(t, left)
				fds, _ := onDisk.List(storage.TypeJournal)
				journals[len(fds)]++
				readOnly := options(h.o)
				readOnly.ReadOnly = true
				db, err := openReadOnlyDB(func() storage.Storage { return asSkiffDoes(onDisk) }, readOnly)
				if err != nil {
					t.Fatalf("crash after %d changes, %s, which leaves %d journals: %v", moment, loss, len(fds), err)
				}
				looked := wrap(db, onDisk)
				got := checksum(t, looked)
				must(t, looked.Close())
				if onDisk.moments() > 0 {
					t.Fatal("something has changed")
				}

				s, err := openOn(onDisk, asSkiffDoes, h.o)
				must(t, err)
				defer func() { must(t, s.Close()) }()
				if checksum(t, s) != got {
					t.Fatalf("crash after %d changes, %s, which leaves %d journals: another content", moment, loss, len(fds))
				}
				return true
			})
			if journals[1] == 0 || journals[2] == 0 {
				t.Errorf("there were %v journals", journals)
			}
		})
	}
}
