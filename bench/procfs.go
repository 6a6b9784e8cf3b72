package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// What Linux tells of a process.
//
// Written are the bytes that it has handed to system calls that write (wchar), not those
// that it has caused to go to the device (write_bytes): these come in whole pages, depend
// on the state of the page cache, and are none on tmpfs. Sockets and pipes are counted
// too; where that matters, the measurement says so. Neither system writes through a
// mapping.
//
// Resident memory includes what of its files a process has mapped, as etcd's database is;
// anonymous memory does not.
type procUse struct {
	cpu               time.Duration
	written           uint64
	rss, anonymousRSS uint64 // bytes
	peakRSS           uint64 // bytes, since the exec, or resetPeak
}

// useOf asks for the process itself: rusage, which there is after its end, has the peak
// of the parent from before the exec.
func useOf(pid int) (u procUse, err error) {
	if u.cpu, err = cpuOf(pid); err != nil {
		return u, err
	}
	if u.written, err = procField(pid, "io", "wchar:", 1); err != nil {
		return u, err
	}
	if u.rss, err = procField(pid, "status", "VmRSS:", 1024); err != nil {
		return u, err
	}
	if u.anonymousRSS, err = procField(pid, "status", "RssAnon:", 1024); err != nil {
		return u, err
	}
	u.peakRSS, err = procField(pid, "status", "VmHWM:", 1024)
	return u, err
}

// resetPeak makes the peak of a process's memory what it has now.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// procField is the number after a name in a file of a process's.
func procField(pid int, file, name string, unit uint64) (n uint64, err error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut("\n"+string(content), "\n"+name)
	if !found {
		return 0, fmt.Errorf("%s has no %s", path, name)
	}
	if _, err := fmt.Sscan(rest, &n); err != nil {
		return 0, fmt.Errorf("%s: %s %w", path, name, err)
	}
	return n * unit, nil
}

// clockTick is the unit of times in /proc/PID/stat, on every architecture that Go knows.
const clockTick = 10 * time.Millisecond

// cpuOf is the time of all threads, of the process and of the kernel for it.
func cpuOf(pid int) (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Fields are counted from the name's end, for it may have spaces in it. Times are the
	// 14th and the 15th, and the name is the 2nd.
	text := string(content)
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return time.Duration(user+system) * clockTick, nil
}
