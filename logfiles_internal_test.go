package skiff

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// Term and vote cannot change, or be gone, without a word.
func TestDamagedTermAndVote(t *testing.T) {
	for name, damage := range map[string]func(*bbolt.Bucket) error{
		"value":       func(b *bbolt.Bucket) error { return b.Put([]byte("CurrentTerm"), make([]byte, 12)) },
		"no checksum": func(b *bbolt.Bucket) error { return b.Put([]byte("CurrentTerm"), make([]byte, 8)) },
		"empty":       func(b *bbolt.Bucket) error { return b.Put([]byte("CurrentTerm"), nil) },
		"another key": func(b *bbolt.Bucket) error {
			return errors.Join(b.Put([]byte("CurrentTern"), b.Get([]byte("CurrentTerm"))), b.Delete([]byte("CurrentTerm")))
		},
		"another bucket": func(b *bbolt.Bucket) error {
			_, err := b.Tx().CreateBucket([]byte("cong"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStores(t, dir, LogStoreBolt)
			noError(t, s.stable.SetUint64([]byte("CurrentTerm"), 7))
			noError(t, s.stable.Set([]byte("LastVoteCand"), []byte("/ip4/10.0.0.1/tcp/1")))
			noError(t, s.close())
			s = newStores(t, dir, LogStoreBolt)
			if term, err := s.stable.GetUint64([]byte("CurrentTerm")); err != nil || term != 7 {
				t.Errorf("term %d, %v", term, err)
			}
			if vote, err := s.stable.Get([]byte("LastVoteCand")); err != nil || string(vote) != "/ip4/10.0.0.1/tcp/1" {
				t.Errorf("vote %q, %v", vote, err)
			}
			if _, err := s.stable.Get([]byte("LastVoteTerm")); err == nil || err.Error() != "not found" {
				t.Errorf("of what was not stored: %v, and raft wants another text", err)
			}
			noError(t, s.close())

			path := filepath.Join(dir, stableFile)
			db, err := bbolt.Open(path, 0o600, nil)
			noError(t, err)
			noError(t, db.Update(func(tx *bbolt.Tx) error { return damage(tx.Bucket([]byte(bucketConf))) }))
			noError(t, db.Close())
			_, err = openRaftStores(filesIn(dir, LogStoreBolt), keepOne, nil)
			wantCorrupt(t, err, path)
		})
	}
}

// bbolt panics over some damage when it opens a file, and keeps it locked.
func TestDamagedFilesAreNotOpened(t *testing.T) {
	for _, file := range []string{stableFile, "log.db"} {
		dir := t.TempDir()
		s := newStores(t, dir, LogStoreBolt)
		fill(t, s.log, span{1, 20, 1})
		noError(t, s.close())
		path := filepath.Join(dir, file)
		sound, err := os.ReadFile(path)
		noError(t, err)
		damaged := append([]byte(nil), sound...)
		for page := 2 * os.Getpagesize(); page < len(damaged); page += os.Getpagesize() {
			damaged[page] ^= 1 // its id
		}
		noError(t, os.WriteFile(path, damaged, 0o600))
		_, err = openRaftStores(filesIn(dir, LogStoreBolt), keepOne, nil)
		wantCorrupt(t, err, path)
		noError(t, os.WriteFile(path, sound, 0o600)) // from a backup
		s = newStores(t, dir, LogStoreBolt)
		if got := spansOf(t, s.log); len(got) != 1 || got[0] != (span{1, 20, 1}) {
			t.Errorf("then the log is %v", got)
		}
	}
}

// holedLog lacks an entry, or panics.
type holedLog struct {
	raft.LogStore
	hole   uint64
	panics bool
}

func (h holedLog) GetLog(index uint64, l *raft.Log) error {
	switch {
	case index == h.hole && h.panics:
		panic("page 7 is not a leaf")
	case index == h.hole:
		return raft.ErrLogNotFound
	}
	return h.LogStore.GetLog(index, l)
}

// raft would panic.
func TestHoleInTheLog(t *testing.T) {
	for _, panics := range []bool{false, true} {
		mem := raft.NewInmemStore()
		fill(t, mem, span{3, 9, 1})
		var failure error
		log := &guardedLog{raftLog: newRaftLog(checkedLog{holedLog{mem, 5, panics}, "raft/log.db"}), onMuted: func(err error) { failure = err }}
		log.running.Store(true)
		for _, index := range []uint64{2, 10} {
			if err := log.GetLog(index, new(raft.Log)); err != raft.ErrLogNotFound {
				t.Errorf("entry %d: %v, want raft's own error", index, err)
			}
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = log.GetLog(5, new(raft.Log))
			t.Error("goes on without an entry")
		}()
		<-ended
		wantCorrupt(t, failure, "")
	}
}

// An error of a write keeps its kind through raft's cache.
func TestCacheKeepsErrors(t *testing.T) {
	below := &notingLog{LogStore: checkedLog{panickingLog{}, "raft/log.db"}}
	cache, err := raft.NewLogCache(logCacheSize, below)
	noError(t, err)
	wantCorrupt(t, cachedLog{cache, below}.StoreLog(&raft.Log{Index: 1}), "raft/log.db")
}

type panickingLog struct{ raft.LogStore }

func (panickingLog) StoreLogs([]*raft.Log) error { panic("page 7 already freed") }

// What bbolt tells as text alone when its file cannot grow can be checked for.
func TestErrorsOfTheSystemAreFound(t *testing.T) {
	for _, test := range []struct {
		err  error
		want error // nil: none
	}{
		{errors.New("file sync error: sync log.db: input/output error"), syscall.EIO},
		{errors.New("file resize error: truncate log.db: no space left on device"), syscall.ENOSPC},
		{&fs.PathError{Op: "write", Path: "log.db", Err: syscall.EROFS}, syscall.EROFS},
		{errors.New("database not open"), nil},
	} {
		err := inFile("log.db", test.err)
		if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.err.Error()) {
			t.Errorf("%v has become %v", test.err, err)
		}
		if found := errors.As(err, new(syscall.Errno)); found != (test.want != nil) || found && !errors.Is(err, test.want) {
			t.Errorf("in %v: %t, want %v", err, found, test.want)
		}
	}
}

// What was removed from the log is not given out any more. raft-wal does so as long as
// it has the segment.
func TestRemovedEntriesAreGone(t *testing.T) {
	for _, kind := range logKinds {
		t.Run(string(kind), func(t *testing.T) {
			log := newStores(t, t.TempDir(), kind).log
			noError(t, log.StoreLogs(span{1, 20, 1}.entries()))
			noError(t, log.DeleteRange(1, 10))
			for index := uint64(1); index <= 20; index++ {
				err := log.GetLog(index, new(raft.Log))
				if removed := errors.Is(err, raft.ErrLogNotFound); removed != (index <= 10) {
					t.Errorf("entry %d: %v", index, err)
				}
			}
		})
	}
}
