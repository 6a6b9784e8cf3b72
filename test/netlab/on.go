package netlab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// On calls open, which makes sockets that belong to the host: they stay there, and may be
// used everywhere. It may start no goroutine that makes any.
func (h *Host) On(open func() error) error {
	if h.number == Outside {
		return open()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with this goroutine
		err := enter(namespaceDir + h.namespace)
		if err == nil {
			err = open()
		}
		result <- err
	}()
	return <-result
}

// enter moves this thread into a namespace.
func enter(path string) error {
	namespace, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = namespace.Close() }() // it was only read
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}
