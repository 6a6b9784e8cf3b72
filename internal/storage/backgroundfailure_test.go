package storage_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/simdisk"
	"github.com/skiffdb/skiff/internal/storage"
)

// A write that goleveldb makes in the background and that fails is told, and is the
// last one: goleveldb would repeat it until it succeeds, whatever that is worth, while
// who writes waits.
func TestAFailureInTheBackgroundIsTold(t *testing.T) {
	for _, test := range []struct {
		name        string
		spoil, mend func(*simdisk.Disk)
		want        error
	}{
		{"full", (*simdisk.Disk).Fill, (*simdisk.Disk).Free, syscall.ENOSPC},
		{
			"syncs fail",
			func(d *simdisk.Disk) { d.Fail(simdisk.Sync, syscall.EIO) },
			func(d *simdisk.Disk) { d.Fail(simdisk.Sync, nil) },
			syscall.EIO,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := simdisk.New(1)
			v, err := d.Open("/ip4/10.0.0.1/tcp/9490", "bolt")
			must(t, err)
			root, err := v.State()
			must(t, err)
			s, err := storage.Open(root, "state-a", nil)
			must(t, err)
			put := func(key string) error {
				var b storage.Batch
				b.Put([]byte(key), []byte("v"), 1)
				return s.Write(&b)
			}
			must(t, put("a"))
			told := make(chan error, 2)
			s.OnFailure(func(err error) { told <- err })
			test.spoil(d)
			if err := s.CompactRange(util.Range{}); !errors.Is(err, test.want) {
				t.Errorf("compaction: %v, want %v", err, test.want)
			}
			if err := <-told; !errors.Is(err, test.want) {
				t.Errorf("told %v, want %v", err, test.want)
			}
			test.mend(d)
			if err := put("b"); !errors.Is(err, test.want) {
				t.Errorf("a write after that: %v, want the error of before", err)
			}
			again := make(chan error, 1)
			s.OnFailure(func(err error) { again <- err })
			if err := <-again; !errors.Is(err, test.want) {
				t.Errorf("who asks later is told %v", err)
			}
			if len(told) > 0 {
				t.Error("told twice")
			}
			_ = s.Close() // it has nothing to say that is not known

			s, err = storage.Open(root, "state-a", nil)
			must(t, err)
			if _, _, err := s.Get([]byte("a"), nil); err != nil {
				t.Errorf("what was written before, when it is opened again: %v", err)
			}
			must(t, put("b"))
			must(t, s.Close())
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
