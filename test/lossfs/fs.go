package lossfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/skiffdb/skiff/test/leftover"
)

// FS is a file system that is mounted. Crash, Wipe and Close are called one at a time,
// while no process uses it; the others may be called at any time.
type FS struct {
	path   string
	disk   *disk
	server *fuse.Server
}

// Missing tells what is not there that a file system needs; nil if nothing.
func Missing() error {
	if os.Getuid() != 0 {
		return errors.New("mounting needs root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// Mount mounts an empty file system on a directory. What crashes do is drawn from the
// seed.
func Mount(path string, seed uint64) (*FS, error) {
	if err := leftover.Unmount(); err != nil {
		return nil, err
	}
	f := &FS{path: path, disk: newDisk(seed)}
	return f, f.mount()
}

func (f *FS) mount() (err error) {
	// No process may be started before closeOnExec: it would keep the file system alive,
	// and whoever waits for it, when this process is killed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	forGood := 365 * 24 * time.Hour // nobody else changes anything
	f.server, err = fs.Mount(f.path, &node{disk: f.disk, entry: f.disk.root}, &fs.Options{
		MountOptions: fuse.MountOptions{
			Name: "lossfs", FsName: leftover.Name("lossfs"), DirectMountStrict: true, MaxWrite: 1 << 20,
		},
		EntryTimeout: &forGood, AttrTimeout: &forGood,
		RootStableAttr: &fs.StableAttr{Ino: f.disk.root.number},
	})
	if err != nil {
		return fmt.Errorf("mount on %s: %w", f.path, err)
	}
	return closeOnExec("/dev/fuse")
}

// closeOnExec keeps a file that is open from processes that are started. go-fuse does not.
func closeOnExec(file string) error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err != nil || name != file {
			continue // closed meanwhile, or another one
		}
		n, err := strconv.Atoi(fd.Name())
		if err != nil {
			return err
		}
		syscall.CloseOnExec(n)
	}
	return nil
}

// busyTime is for how long somebody else may look at the files, or a process that has
// ended lets go of them.
const busyTime = 30 * time.Second

// Close unmounts the file system, which is lost.
func (f *FS) Close() error {
	if f.server == nil {
		return nil
	}
	for deadline := time.Now().Add(busyTime); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Unmount(f.path, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("unmount %s: %w", f.path, err)
		}
	}
	f.server.Wait()
	f.server = nil
	return nil
}

// Crash loses some of what was not synced, and tells of what kind.
func (f *FS) Crash() (what string, err error) {
	err = f.remount(func() { what = f.disk.crashSomehow().String() })
	return what, err
}

// Wipe removes everything.
func (f *FS) Wipe() error { return f.remount(f.disk.wipe) }

// remount changes the disk behind the kernel, which forgets all it has seen.
func (f *FS) remount(change func()) error {
	if err := f.Close(); err != nil {
		return err
	}
	change()
	return f.mount()
}

// Fill leaves no space: what needs some fails with ENOSPC, until Heal.
func (f *FS) Fill() { f.disk.set(func(t *trouble) { t.full = true }) }

// FailWrites lets all that changes something fail, until Heal.
func (f *FS) FailWrites(with syscall.Errno) { f.disk.set(func(t *trouble) { t.failWrites = with }) }

// FailSyncs lets syncs fail with EIO, until Heal. As with the kernel's own file systems
// some of what was to be synced is not, and will not be by later syncs either, although
// it can be read.
func (f *FS) FailSyncs() { f.disk.set(func(t *trouble) { t.failSyncs = true }) }

// SlowSyncs lets each sync take so much longer, until Heal.
func (f *FS) SlowSyncs(by time.Duration) { f.disk.set(func(t *trouble) { t.slow = by }) }

// Heal ends all trouble.
func (f *FS) Heal() { f.disk.set(func(t *trouble) { *t = trouble{ignore: t.ignore} }) }

// IgnoreSyncs lets syncs do nothing from now on, as a disk does that lies.
func (f *FS) IgnoreSyncs() { f.disk.set(func(t *trouble) { t.ignore = true }) }
