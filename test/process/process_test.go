package process

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, line func([]byte), command ...string) (*Process, *os.File) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	p, err := Start(command, line, log)
	if err != nil {
		t.Fatal(err)
	}
	return p, log
}

func TestOutput(t *testing.T) {
	var got []string
	p, log := start(t, func(line []byte) { got = append(got, string(line)) },
		"sh", "-c", "echo one; printf tw; sleep 0.01; echo o; printf thr; echo log >&2; exit 3")
	<-p.Done()
	if exit, ok := errors.AsType[*exec.ExitError](p.Err()); !ok || exit.ExitCode() != 3 {
		t.Errorf("ended with %v", p.Err())
	}
	if want := []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("printed %q, want %q", got, want)
	}
	if text, err := os.ReadFile(log.Name()); err != nil || string(text) != "log\n" {
		t.Errorf("logged %q, %v", text, err)
	}
}

func TestSignals(t *testing.T) {
	p, _ := start(t, func([]byte) {}, "sleep", "1000")
	if files, err := p.Files(); err != nil || files < 3 {
		t.Errorf("%d files, %v", files, err)
	}
	if memory, err := p.Memory(); err != nil || memory < 4096 {
		t.Errorf("%d bytes of memory, %v", memory, err)
	}
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		if err := p.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	<-p.Done()
	if exit, ok := errors.AsType[*exec.ExitError](p.Err()); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", p.Err())
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("one that has ended: %v", err)
	}
}

func TestStartTellsWhatItTried(t *testing.T) {
	_, err := Start([]string{"/nowhere/skiff", "serve"}, func([]byte) {}, nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nowhere/skiff serve") {
		t.Error(err)
	}
}

func TestBinary(t *testing.T) {
	path, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Binary(); err != nil || again != path {
		t.Errorf("%s and then %s, %v", path, again, err)
	}
	if out, err := exec.Command(path, "version").CombinedOutput(); err != nil {
		t.Errorf("%s: %v", out, err)
	}
	if err := RemoveBinary(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
