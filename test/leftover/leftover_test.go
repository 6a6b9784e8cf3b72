package leftover

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// gone is the id of a process that is gone.
func gone(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(cmd.Process.Pid)
}

func TestIsOne(t *testing.T) {
	for name, want := range map[string]bool{
		prefix + gone(t) + "-x": true,
		Name("x"):               true,
		prefix + strconv.Itoa(os.Getppid()) + "-x": false,
		"other-" + gone(t) + "-x":                  false,
		prefix + "x":                               false,
	} {
		if got := IsOne(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestUnmount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	left, used := t.TempDir(), t.TempDir()
	for path, source := range map[string]string{
		left: prefix + gone(t) + "-x", used: prefix + strconv.Itoa(os.Getppid()) + "-x",
	} {
		if err := syscall.Mount(source, path, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(path, 0) })
	}
	if err := unmount(); err != nil {
		t.Fatal(err)
	}
	if isMounted(t, left) || !isMounted(t, used) {
		t.Errorf("left over: %v, in use: %v", isMounted(t, left), isMounted(t, used))
	}
}

func isMounted(t *testing.T, path string) bool {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(strings.Split(string(mounts), "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 1 && f[1] == path
	})
}
