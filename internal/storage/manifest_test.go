package storage

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// keysAfterReopening writes large batches to a goleveldb, closes it in order,
// opens it again, and returns how many of n keys are there.
func keysAfterReopening(t *testing.T, o *opt.Options, n int) int {
	t.Helper()
	stor := storage.NewMemStorage()
	db, err := leveldb.Open(stor, o)
	must(t, err)
	value := make([]byte, 300)
	for i := 0; i < n; {
		b := new(leveldb.Batch)
		for ; i < n && b.Len() < 50; i++ {
			b.Put(fmt.Appendf(nil, "%06d", i), value)
		}
		must(t, db.Write(b, nil))
	}
	must(t, db.Close())

	db, err = leveldb.Open(stor, o)
	must(t, err)
	defer db.Close()
	found := 0
	for i := range n {
		switch has, err := db.Has(fmt.Appendf(nil, "%06d", i), nil); {
		case err != nil:
			t.Fatal(err)
		case has:
			found++
		}
	}
	return found
}

// This is why options sets MaxManifestFileSize: when goleveldb's manifest passes
// it, a new one is written without the record that is being committed, and so
// with an old sequence number. After a clean close and reopen, committed keys
// above it are gone. If the plain goleveldb keeps them one day, the limit can go.
func TestManifestRotationLosesKeys(t *testing.T) {
	const n = 1000
	user := &opt.Options{WriteBuffer: 4 << 10, MaxManifestFileSize: 100}
	if found := keysAfterReopening(t, user, n); found < n {
		t.Logf("plain goleveldb: %d of %d keys are left", found, n)
	} else {
		t.Logf("plain goleveldb lost no keys this time")
	}

	ours := options(user)
	ours.DisableLargeBatchTransaction = false // the limit alone is enough
	if found := keysAfterReopening(t, ours, n); found != n {
		t.Errorf("with our limit %d of %d keys are left", found, n)
	}
	ours = options(user)
	if found := keysAfterReopening(t, ours, n); found != n {
		t.Errorf("with our options %d of %d keys are left", found, n)
	}
}

func TestOptionsThatTheStateDependsOn(t *testing.T) {
	for name, user := range map[string]*opt.Options{
		"none":  nil,
		"zero":  {},
		"small": {MaxManifestFileSize: 1, WriteBuffer: 1 << 20},
	} {
		before := opt.Options{}
		if user != nil {
			before = *user
		}
		o := options(user)
		if o.GetMaxManifestFileSize() != math.MaxInt64 {
			t.Errorf("%s: MaxManifestFileSize is %d", name, o.GetMaxManifestFileSize())
		}
		if !o.GetDisableLargeBatchTransaction() {
			t.Errorf("%s: large batches do not go through the journal", name)
		}
		if !o.GetBlockCacheEvictRemoved() {
			t.Errorf("%s: blocks of removed tables stay in the cache", name)
		}
		if user != nil && !reflect.DeepEqual(*user, before) {
			t.Errorf("%s: the user's options were changed", name)
		}
		if user != nil && o.WriteBuffer != user.WriteBuffer {
			t.Errorf("%s: WriteBuffer is %d", name, o.WriteBuffer)
		}
	}
}

// A state on disk is for one process at a time.
func TestAStateIsLocked(t *testing.T) {
	dir := t.TempDir()
	newStore(t, dir)
	if _, err := OpenDir(dir, nil); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("a second Open: %v", err)
	}
}
