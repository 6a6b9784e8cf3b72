// Package process runs nodes as processes of the command skiff, which can be killed and
// paused, and tells what they tell.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Process is a command that runs, or has ended. Its methods may be called concurrently.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; set before done is closed
}

// Start runs a command line. What it prints to standard output goes to each line, one
// line at a time, the rest to log. The process ends with this one, however that ends.
func Start(command []string, line func([]byte), log *os.File) (*Process, error) {
	cmd := exec.Command(command[0], command[1:]...)
	stdout := &lines{each: line}
	cmd.Stdout, cmd.Stderr = stdout, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the process has ended, after Done is closed. Nil: with exit code 0.
func (p *Process) Err() error { return p.err }

// Signal sends the process a signal. One that has ended gets none.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to process %d: %w", s, p.cmd.Process.Pid, err)
	}
	return nil
}

// Files is how many file descriptors the process has open.
func (p *Process) Files() (int, error) {
	entries, err := os.ReadDir(p.proc("fd"))
	return len(entries), err
}

// Memory is how many bytes of memory the process uses (its resident set).
func (p *Process) Memory() (int64, error) {
	statm, err := os.ReadFile(p.proc("statm"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("%s holds %q", p.proc("statm"), statm)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

func (p *Process) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), file)
}
