package lossfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mount(t *testing.T) (*FS, string) {
	t.Helper()
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	path := t.TempDir()
	f, err := Mount(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, path
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A file has what was written to it, in whatever way it is read.
func TestContent(t *testing.T) {
	_, path := mount(t)
	file, err := os.Create(filepath.Join(path, "a"))
	ok(t, err)
	defer file.Close()
	random := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for range 200 {
		at := random.Int64N(1 << 20)
		if random.IntN(10) == 0 {
			ok(t, file.Truncate(at))
			want = append(want, make([]byte, max(0, at-int64(len(want))))...)[:at:at]
			continue
		}
		b := make([]byte, random.IntN(1<<random.IntN(18)))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if end := at + int64(len(b)); end > int64(len(want)) && len(b) > 0 {
			want = append(want, make([]byte, end-int64(len(want)))...)
		}
		_, err := file.WriteAt(b, at)
		ok(t, err)
		copy(want[min(at, int64(len(want))):], b)
	}
	got, err := os.ReadFile(file.Name())
	ok(t, err)
	mapped, err := unix.Mmap(int(file.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	ok(t, err)
	if !bytes.Equal(got, want) || !bytes.Equal(mapped, want) {
		t.Error("differs from what was written")
	}
	_, err = file.WriteAt([]byte("later"), 0)
	ok(t, err)
	if string(mapped[:5]) != "later" {
		t.Errorf("the mapping has %q", mapped[:5])
	}
	ok(t, unix.Munmap(mapped))
}

func TestNames(t *testing.T) {
	_, path := mount(t)
	a, b, dir := filepath.Join(path, "a"), filepath.Join(path, "b"), filepath.Join(path, "dir")
	ok(t, os.WriteFile(a, []byte("1"), 0o600))
	ok(t, os.Mkdir(dir, 0o700))
	ok(t, os.Rename(a, b))
	ok(t, os.WriteFile(filepath.Join(dir, "c"), nil, 0o600))
	for what, failure := range map[string]struct{ got, want error }{
		"open what was renamed":    {errorOf(os.Stat(a)), fs.ErrNotExist},
		"make again":               {os.Mkdir(dir, 0o700), fs.ErrExist},
		"remove what is not empty": {os.Remove(dir), syscall.ENOTEMPTY},
		"move elsewhere":           {os.Rename(b, filepath.Join(dir, "b")), syscall.EXDEV},
	} {
		if !errors.Is(failure.got, failure.want) {
			t.Errorf("%s: %v", what, failure.got)
		}
	}
	entries, err := os.ReadDir(path)
	ok(t, err)
	if len(entries) != 2 || entries[0].Name() != "b" || entries[1].Name() != "dir" || !entries[1].IsDir() {
		t.Errorf("%v", entries)
	}
	if got, err := os.ReadFile(b); err != nil || string(got) != "1" {
		t.Errorf("%q, %v", got, err)
	}
	ok(t, os.RemoveAll(dir))
}

func errorOf(_ any, err error) error { return err }

func TestCrashAndWipe(t *testing.T) {
	f, path := mount(t)
	synced, other := filepath.Join(path, "synced"), filepath.Join(path, "other")
	writeSynced(t, synced, "1")
	ok(t, os.WriteFile(other, []byte("2"), 0o600))
	ok(t, f.remount(func() { f.disk.crash(losses[1]) }))
	if got, err := os.ReadFile(synced); err != nil || string(got) != "1" {
		t.Errorf("synced: %q, %v", got, err)
	}
	if _, err := os.Stat(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not synced: %v", err)
	}
	_, err := f.Crash()
	ok(t, err)
	ok(t, f.Wipe())
	if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
		t.Errorf("wiped: %v, %v", entries, err)
	}
}

// writeSynced makes a file durable, and its name.
func writeSynced(t *testing.T, path, content string) {
	t.Helper()
	file, err := os.Create(path)
	ok(t, err)
	_, err = file.WriteString(content)
	ok(t, err)
	ok(t, file.Sync())
	ok(t, file.Close())
	dir, err := os.Open(filepath.Dir(path))
	ok(t, err)
	ok(t, dir.Sync())
	ok(t, dir.Close())
}

func TestTrouble(t *testing.T) {
	f, path := mount(t)
	file, err := os.Create(filepath.Join(path, "a"))
	ok(t, err)
	defer file.Close()
	_, err = file.WriteString("1")
	ok(t, err)
	ok(t, unix.Fallocate(int(file.Fd()), 0, 0, 1<<20))
	overwrite := func() error { return errorOf(file.WriteAt([]byte("2"), 0)) }
	reserved := func() error { return errorOf(file.WriteAt([]byte("2"), 1<<20-1)) }
	extend := func() error { return errorOf(file.WriteAt([]byte("2"), 1<<20)) }
	create := func() error {
		b, err := os.OpenFile(filepath.Join(path, "b"), os.O_CREATE|os.O_EXCL, 0o600)
		return errors.Join(err, b.Close(), os.Remove(filepath.Join(path, "b")))
	}
	remove := func() error { return os.Remove(filepath.Join(path, "c")) }
	for _, test := range []struct {
		name    string
		trouble func()
		fails   map[string]error
	}{
		{"none", func() {}, nil},
		{"full", f.Fill, map[string]error{"extend": syscall.ENOSPC, "create": syscall.ENOSPC}},
		{"writes fail", func() { f.FailWrites(syscall.EIO) }, map[string]error{
			"overwrite": syscall.EIO, "reserved": syscall.EIO, "extend": syscall.EIO, "create": syscall.EIO, "remove": syscall.EIO,
		}},
		{"syncs fail", f.FailSyncs, map[string]error{"sync": syscall.EIO}},
		{"syncs are slow", func() { f.SlowSyncs(time.Millisecond) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			ok(t, file.Truncate(1<<20))
			ok(t, unix.Fallocate(int(file.Fd()), 0, 0, 1<<20))
			ok(t, os.WriteFile(filepath.Join(path, "c"), nil, 0o600))
			test.trouble()
			defer f.Heal()
			for what, do := range map[string]func() error{
				"overwrite": overwrite, "reserved": reserved, "extend": extend, "create": create, "remove": remove, "sync": file.Sync,
			} {
				if err := do(); !errors.Is(err, test.fails[what]) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// A process that is started while a file system is mounted does not keep it alive.
func TestOtherProcessesDoNotInherit(t *testing.T) {
	mount(t)
	out, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
	if err != nil || strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("%v, open there:\n%s", err, out)
	}
}
