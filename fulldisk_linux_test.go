package skiff

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/disk"
	"github.com/skiffdb/skiff/internal/memnet"
)

// smallDisk is an empty file system that can be filled.
type smallDisk struct {
	t    *testing.T
	path string
}

// newSmallDisk needs to be root.
func newSmallDisk(t *testing.T, mebibytes int) smallDisk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a file system can be mounted by root only")
	}
	d := smallDisk{t, t.TempDir()}
	err := syscall.Mount("tmpfs", d.path, "tmpfs", 0, fmt.Sprintf("size=%dm", mebibytes))
	if errors.Is(err, syscall.EPERM) {
		t.Skip("not even root can mount a file system here")
	}
	noError(t, err)
	t.Cleanup(func() { noError(t, syscall.Unmount(d.path, 0)) })
	return d
}

// fill leaves as much space as it is told to.
func (d smallDisk) fill(left int64) {
	d.t.Helper()
	f, err := os.Create(d.filler())
	noError(d.t, err)
	size := int64(0)
	for err == nil {
		var n int
		n, err = f.Write(make([]byte, 64<<10))
		size += int64(n)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatal(err)
	}
	noError(d.t, errors.Join(f.Truncate(size-left), f.Close()))
}

func (d smallDisk) free() {
	d.t.Helper()
	noError(d.t, os.Remove(d.filler()))
}

func (d smallDisk) filler() string { return filepath.Join(d.path, "filler") }

// That a disk is full is what the stores under raft say, whatever does not fit, and there
// is nothing wrong with them afterwards.
func TestStoresOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind LogStore
		size int   // of the disk, in MiB
		left int64 // when it is full
		what string
	}{
		{LogStoreBolt, 8, 0, "an entry"},
		{LogStoreWAL, 70, 0, "an entry"}, // the first segment has 64 MiB from the start
		{LogStoreWAL, 70, 3 << 19, "the next segment"},
	} {
		t.Run(fmt.Sprintf("%s, %s", test.kind, test.what), func(t *testing.T) {
			d := newSmallDisk(t, test.size)
			open := func(name string) (*disk.Raft, error) {
				return openRaftFiles(filepath.Join(d.path, name), test.kind)
			}
			r, err := open("raft")
			noError(t, err)
			d.fill(test.left)
			stored := uint64(0)
			for err == nil {
				err = r.Log.StoreLog(&raft.Log{Index: stored + 1, Term: 1, Data: make([]byte, 1<<20)})
				if err == nil {
					stored++
				}
			}
			wantFull(t, "an entry", err)
			wantFull(t, "the vote", r.Stable.Set([]byte("vote"), make([]byte, 4<<20)))
			noError(t, r.Close())
			_, err = open("another")
			wantFull(t, "a start", err)

			d.free()
			r, err = open("raft")
			noError(t, err)
			if last, err := r.Log.LastIndex(); err != nil || last < stored || last > stored+1 {
				t.Errorf("the log ends at %d, %v; %d entries were stored", last, err, stored)
			}
			noError(t, r.Close())
		})
	}
}

// A node whose disk is full stops itself and says that; with space it starts again.
func TestNodeOnAFullDisk(t *testing.T) {
	t.Parallel()
	const addr = "/ip4/10.0.0.1/tcp/9490"
	for _, full := range []string{"raft", "state"} {
		t.Run(full, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d := newSmallDisk(t, 8)
				dir := filepath.Join(t.TempDir(), "node")
				o := Options{Dir: dir, LogStore: LogStoreBolt, Transport: memnet.New().Host(addr), HeartbeatTimeout: 50 * time.Millisecond}
				n := startedNode(t, t.Context(), addr, o)
				noError(t, n.WaitReady(t.Context()))
				noError(t, n.DB().Put([]byte("k"), []byte("v"), nil))
				noError(t, n.Stop(t.Context()))
				moved := filepath.Join(d.path, full)
				noError(t, os.CopyFS(moved, os.DirFS(filepath.Join(dir, full))))
				noError(t, errors.Join(os.RemoveAll(filepath.Join(dir, full)), os.Symlink(moved, filepath.Join(dir, full))))

				n, err := New(addr, o)
				noError(t, err)
				noError(t, n.Start(t.Context()))
				noError(t, n.WaitReady(t.Context()))
				d.fill(0)
				for err == nil {
					err = n.DB().Put([]byte("more"), make([]byte, 256<<10), nil)
				}
				<-n.Done()
				if !errors.Is(n.Err(), ErrFailed) {
					t.Errorf("it stopped with %v", n.Err())
				}
				wantFull(t, "the node", n.Err())
				_ = n.Stop(t.Context()) // it may not be able to close its files in order

				if n, err = New(addr, o); err == nil {
					if err = n.Start(t.Context()); err == nil {
						_ = n.Stop(t.Context())
					} else {
						wantFull(t, "a start", err)
					}
				}
				d.free()
				n = startedNode(t, t.Context(), addr, o)
				noError(t, n.WaitReady(t.Context()))
				if v, err := n.DB().Get([]byte("k"), nil); err != nil || string(v) != "v" {
					t.Errorf("then it has %q, %v", v, err)
				}
				noError(t, n.DB().Put([]byte("k"), []byte("w"), nil))
				noError(t, n.Stop(t.Context()))
			})
		})
	}
}

func wantFull(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%s: %v, want ENOSPC", what, err)
	}
}
