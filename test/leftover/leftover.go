// Package leftover gives names to what tests make in the system, so that what a killed
// run has left there can be told from what is in use, and be removed.
package leftover

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const prefix = "skiff-test-"

// Name is a name for something that belongs to this process.
func Name(of string) string { return fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), of) }

// IsOne tells whether something with this name belongs to a process that is gone, or to
// one that had the id of this one.
func IsOne(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	if !ours {
		return false
	}
	id, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(id)
	return err == nil && (pid == os.Getpid() || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH))
}

// Unmount removes, once, the mounts whose source has such a name. It has to be called
// before this process mounts anything under such a name.
var Unmount = sync.OnceValue(unmount)

func unmount() error {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return err
	}
	defer func() { _ = mounts.Close() }() // it was only read
	var errs []error
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 1 && IsOne(f[0]) {
			// First by force, which ends the waiting of processes that are stuck in it.
			if syscall.Unmount(f[1], syscall.MNT_FORCE) != nil {
				errs = append(errs, os.NewSyscallError("unmount "+f[1], syscall.Unmount(f[1], syscall.MNT_DETACH)))
			}
		}
	}
	return errors.Join(errs...)
}
