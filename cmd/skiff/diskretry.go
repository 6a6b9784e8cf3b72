package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// The wait before a node is started again whose disk has failed, which doubles each time.
const (
	firstDiskWait = time.Second
	lastDiskWait  = 30 * time.Second
)

// keepServing runs a node with serve, and again when its disk has stopped it: with space
// on the disk it comes back. It ends with ctx, or with any other error. A node that has
// never started, it does not try again: whoever has typed the command sees why.
//
// serve reports whether the node has started. A line on standard error says what is wrong
// with the disk, unless nothing has happened since it was said. A node that runs for as
// long as the longest wait has recovered.
func keepServing(ctx context.Context, e *env, address string, serve func(context.Context) (started bool, err error)) error {
	var ever bool
	var told error
	wait := firstDiskWait
	for {
		begun := time.Now()
		started, err := serve(ctx)
		cause := diskError(err)
		if ever = ever || started; !ever || cause == nil || ctx.Err() != nil {
			return err
		}
		if time.Since(begun) >= lastDiskWait {
			wait = firstDiskWait
		}
		if started || cause != told {
			fmt.Fprintf(e.stderr, "failed %s: %v; trying again until the disk works\n", address, cause)
			told = cause
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil // told to end
		}
		wait = min(2*wait, lastDiskWait)
	}
}

// diskError is what a disk says that is full or broken; nil if err is of another kind.
func diskError(err error) error {
	for _, disk := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, disk) {
			return disk
		}
	}
	return nil
}
