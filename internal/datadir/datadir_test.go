package datadir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	addressA = "/ip4/127.0.0.1/tcp/9490"
	addressB = "/ip4/127.0.0.1/tcp/9491"
)

// holderEnv makes the test binary a second process that opens the directory it
// names, tells how that went, and holds it until its standard input ends.
const holderEnv = "SKIFF_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderEnv); dir != "" {
		if _, err := Open(dir, addressB, "bolt"); err != nil {
			fmt.Printf("%T %v\n", err, err)
		} else {
			fmt.Println("open")
		}
		io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// startHolder returns the second process and its first line of output.
func startHolder(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderEnv+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

func mustOpen(t *testing.T, path, address string) *Dir {
	t.Helper()
	d, err := Open(path, address, "bolt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func mustClose(t *testing.T, d *Dir) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "parents", "node")
	d := mustOpen(t, path, addressA)
	first := d.Identity()
	if !d.Fresh() || first.Format != 2 || first.Address != addressA || first.LogStore != "bolt" || first.ClusterID != "" {
		t.Fatalf("fresh %v, identity %+v", d.Fresh(), first)
	}
	if err := d.SetClusterID("00c0ffee"); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Path("raft", "stable.db"), filepath.Join(path, "raft", "stable.db"); got != want {
		t.Errorf("Path = %s, want %s", got, want)
	}
	mustClose(t, d)
	mustClose(t, d)

	d = mustOpen(t, path, addressA)
	want := first
	want.ClusterID = "00c0ffee"
	if d.Fresh() || d.Identity() != want {
		t.Errorf("reopened: fresh %v, identity %+v, want %+v", d.Fresh(), d.Identity(), want)
	}
	if other := mustOpen(t, t.TempDir(), addressA); other.Identity().Incarnation == first.Incarnation {
		t.Error("two directories have the same incarnation")
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	mustOpen(t, path, addressA)
	for name, want := range map[string]fs.FileMode{"": 0o700, lockName: 0o600, identityName: 0o600} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v, want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestRelativePathIsFixedAtOpen(t *testing.T) {
	base := t.TempDir()
	t.Chdir(base)
	d := mustOpen(t, "node", addressA)
	t.Chdir(t.TempDir())
	if err := d.SetClusterID("ab"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	if id := mustOpen(t, filepath.Join(base, "node"), addressA).Identity().ClusterID; id != "ab" {
		t.Errorf("cluster id %q, want ab", id)
	}
}

func TestInUseInThisProcess(t *testing.T) {
	path := t.TempDir()
	mustOpen(t, path, addressA)
	wantInUse(t, path, fmt.Sprintf("pid %d, %s", os.Getpid(), addressA))
}

func TestInUseSeenFromAnotherProcess(t *testing.T) {
	path := t.TempDir()
	mustOpen(t, path, addressA)
	_, got := startHolder(t, path)
	want := fmt.Sprintf("*datadir.InUseError data directory %s: in use by pid %d, %s", path, os.Getpid(), addressA)
	if got != want {
		t.Errorf("second process: %s, want %s", got, want)
	}
}

func TestKilledHolderLeavesTheLock(t *testing.T) {
	path := t.TempDir()
	holder, line := startHolder(t, path)
	if line != "open" {
		t.Fatal(line)
	}
	wantInUse(t, path, fmt.Sprintf("pid %d, %s", holder.Process.Pid, addressB))
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	holder.Wait() // its end releases the lock
	if mustOpen(t, path, addressB).Fresh() {
		t.Error("the killed process's identity is gone")
	}
}

func wantInUse(t *testing.T, path, holder string) {
	t.Helper()
	_, err := Open(path, addressB, "bolt")
	inUse, ok := errors.AsType[*InUseError](err)
	if !ok || inUse.Dir != path || inUse.Holder != holder {
		t.Fatalf("Open: %v, want in use by %s", err, holder)
	}
}

func TestMismatch(t *testing.T) {
	path := t.TempDir()
	mustClose(t, mustOpen(t, path, addressA))
	for _, test := range []struct {
		address, logStore string
		want              MismatchError
	}{
		{addressB, "bolt", MismatchError{path, "address", addressA, addressB}},
		{addressA, "wal", MismatchError{path, "log store", "bolt", "wal"}},
	} {
		_, err := Open(path, test.address, test.logStore)
		if got, ok := errors.AsType[*MismatchError](err); !ok || *got != test.want {
			t.Errorf("Open: %v, want %+v", err, test.want)
		}
	}
	mustOpen(t, path, addressA) // a refused Open holds no lock
}

func TestMismatchOfFormat(t *testing.T) {
	path := t.TempDir()
	raw := `{"format":1,"address":["of","another","shape"]}`
	writeFile(t, filepath.Join(path, identityName), fmt.Sprintf(`{"identity":%s,"crc32c":%q}`, raw, checksum([]byte(raw))))
	_, err := Open(path, addressA, "bolt")
	if got, ok := errors.AsType[*MismatchError](err); !ok || *got != (MismatchError{path, "format", "1", "2"}) {
		t.Errorf("Open: %v, want a mismatch of the format", err)
	}
}

func TestSetClusterID(t *testing.T) {
	d := mustOpen(t, t.TempDir(), addressA)
	for _, id := range []string{"", "abc", "no hex"} {
		if err := d.SetClusterID(id); err == nil {
			t.Errorf("SetClusterID(%q) = nil", id)
		}
	}
	for range 2 {
		if err := d.SetClusterID("ab"); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := errors.AsType[*MismatchError](d.SetClusterID("cd")); !ok || d.Identity().ClusterID != "ab" {
		t.Error("another cluster id was accepted")
	}
	mustClose(t, d)
	if err := d.SetClusterID("ef"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("SetClusterID after Close: %v", err)
	}
}

// A failed write changes neither what is on disk nor what Identity says.
func TestSetClusterIDFails(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path, addressA)
	if err := os.Mkdir(filepath.Join(path, identityName+tempSuffix), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.SetClusterID("ab"); err == nil || d.Identity().ClusterID != "" {
		t.Fatalf("SetClusterID = %v, identity %+v", err, d.Identity())
	}
	// The failed write cleaned up, so the same call now succeeds.
	if err := d.SetClusterID("ab"); err != nil {
		t.Fatal(err)
	}
}

func TestCorrupt(t *testing.T) {
	for _, content := range []string{"", "not JSON", "{}", `{"identity":null}`, `{"format":2}`} {
		path := t.TempDir()
		file := filepath.Join(path, identityName)
		writeFile(t, file, content)
		_, err := Open(path, addressA, "bolt")
		if got, ok := errors.AsType[*CorruptError](err); !ok || got.File != file || !strings.Contains(err.Error(), file) {
			t.Errorf("Open with %q: %v, want a CorruptError", content, err)
		}
	}
}

func TestRefusesForeignDirectory(t *testing.T) {
	for _, name := range []string{"CURRENT", "raft", "lost+found", "." + identityName} {
		path := t.TempDir()
		writeFile(t, filepath.Join(path, lockName), "") // goleveldb has one, too
		writeFile(t, filepath.Join(path, name), "precious")
		_, err := Open(path, addressA, "bolt")
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), name) {
			t.Errorf("Open of a directory with %s: %v, want ErrForeign", name, err)
		}
	}
}

func TestOpenRefusesNonsense(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	for _, test := range []struct{ path, address, logStore string }{
		{file, addressA, "bolt"},
		{filepath.Join(file, "below"), addressA, "bolt"},
		{t.TempDir(), "", "bolt"},
	} {
		if d, err := Open(test.path, test.address, test.logStore); err == nil {
			d.Close()
			t.Errorf("Open(%q, %q, %q) = nil", test.path, test.address, test.logStore)
		}
	}
}

// What a crash in the middle of a write leaves is neither believed nor in the way.
func TestCrashLeftovers(t *testing.T) {
	path := t.TempDir()
	temp := filepath.Join(path, identityName+tempSuffix)

	writeFile(t, temp, `{"identity":{"form`)
	writeFile(t, filepath.Join(path, lockName), "pid 1, "+addressB)
	d := mustOpen(t, path, addressA)
	if err := d.SetClusterID("ab"); err != nil || !d.Fresh() {
		t.Fatalf("after a crash in the first start: fresh %v, %v", d.Fresh(), err)
	}
	mustClose(t, d)

	writeFile(t, temp, "")
	if id := mustOpen(t, path, addressA).Identity().ClusterID; id != "ab" {
		t.Errorf("after a crash in a later write: cluster id %q", id)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
}

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	writeFile(t, file+tempSuffix, "left by a crash, and longer than what is written next")
	for _, want := range []string{"one", "", "two"} {
		if err := WriteFileAtomic(file, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}

	blocked := filepath.Join(dir, "directory")
	writeFile(t, filepath.Join(blocked, "file"), "")
	if err := WriteFileAtomic(blocked, nil); err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("WriteFileAtomic over a directory: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// writeFile creates the parents, too.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUpdate(t *testing.T) {
	path := t.TempDir()
	d, err := Open(path, addressA, "bolt")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Update(func(i *Identity) { i.AdmittedTerm, i.AdmittedIndex = 3, 10 }); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Update(func(i *Identity) { i.Gone = Left }); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
	d, err = Open(path, addressA, "bolt")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if id := d.Identity(); id.AdmittedTerm != 3 || id.AdmittedIndex != 10 {
		t.Errorf("read back as %+v", id)
	}
}

// A directory moves from one address to another once, however often it is asked to.
func TestMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := Move(path, addressA, addressB); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that does not exist: %v", err)
	}
	d, err := Open(path, addressA, "bolt")
	if err != nil {
		t.Fatal(err)
	}
	incarnation := d.Identity().Incarnation
	var inUse *InUseError
	if err := Move(path, addressA, addressB); !errors.As(err, &inUse) {
		t.Errorf("while it is open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var mismatch *MismatchError
	if err := Move(path, "/ip4/10.0.0.9/tcp/9490", addressB); !errors.As(err, &mismatch) {
		t.Errorf("from an address that is not its own: %v", err)
	}
	for range 2 {
		if err := Move(path, addressA, addressB); err != nil {
			t.Fatal(err)
		}
	}
	if d, err = Open(path, addressB, "bolt"); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if id := d.Identity(); id.MovedFrom != addressA || id.Incarnation != incarnation {
		t.Errorf("moved, it is %+v", id)
	}
}
