package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/skiffdb/skiff"
)

// retryWait is the wait before a batch that may not have been written is written
// again.
const retryWait = 100 * time.Millisecond

// loader writes records in batches, several at a time, and knows up to which line
// everything is acknowledged.
type loader struct {
	db      *skiff.DB
	o       *loadOptions
	decode  func([]byte) (record, error)
	cancel  func()        // ends the context of load; called on the first failure
	slots   chan struct{} // holds one for each of underWay
	writers sync.WaitGroup

	mu             sync.Mutex
	underWay       []*loadBatch // in the order of their lines, from the first that is not acknowledged
	resume         *resumeFile
	records, bytes int64 // acknowledged, up to the line in resume
	err            error // the first failure
}

func newLoader(db *skiff.DB, o *loadOptions, resume *resumeFile, cancel func()) *loader {
	decode := decodeJSON
	if o.format.value == "tsv" {
		decode = decodeTSV
	}
	return &loader{db: db, o: o, decode: decode, cancel: cancel, slots: make(chan struct{}, o.parallel), resume: resume}
}

// load writes all that follows the line up to which everything is acknowledged. What
// stands before a line that cannot be read is still written.
func (l *loader) load(ctx context.Context, in *lines) error {
	err := l.skip(in)
	if err == nil {
		err = l.read(ctx, in)
	}
	l.writers.Wait()
	if l.err != nil {
		err = l.err // the cause of what read met
	}
	return errors.Join(err, l.resume.save())
}

// skip moves in behind what is acknowledged.
func (l *loader) skip(in *lines) error {
	done := l.resume.state.Line
	for in.number < done {
		_, err := in.next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s has only %d lines, but %s says that %d are loaded", in.name, in.number, l.resume.path, done)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read cuts the input into batches.
func (l *loader) read(ctx context.Context, in *lines) error {
	batch := newLoadBatch(in.name)
	for {
		r, err := l.next(in)
		switch {
		case errors.Is(err, io.EOF):
			return l.submit(ctx, batch)
		case err != nil:
			return errors.Join(l.submit(ctx, batch), err)
		case batch.full(r, l.o):
			if err := l.submit(ctx, batch); err != nil {
				return err
			}
			batch = newLoadBatch(in.name)
		}
		batch.add(r, in.number)
	}
}

// next returns the next record, or io.EOF.
func (l *loader) next(in *lines) (record, error) {
	for {
		line, err := in.next()
		if err != nil {
			return record{}, err
		}
		if len(bytes.TrimRight(line, " ")) == 0 {
			continue
		}
		r, err := l.decode(line)
		if err != nil {
			return record{}, in.fail(err)
		}
		return r, nil
	}
}

// submit begins to write a batch as soon as there is a slot, and nothing under way
// has a key of it: of two values for one key the later has to win.
func (l *loader) submit(ctx context.Context, b *loadBatch) error {
	if b.Len() == 0 {
		return nil
	}
	for _, earlier := range l.conflicts(b) {
		select {
		case <-earlier.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	l.underWay = append(l.underWay, b)
	l.mu.Unlock()
	l.writers.Go(func() { l.finish(b, l.write(ctx, b)) })
	return nil
}

// conflicts returns the batches under way that have a key of b.
func (l *loader) conflicts(b *loadBatch) []*loadBatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*loadBatch
	for _, earlier := range l.underWay {
		if earlier.overlaps(b) {
			found = append(found, earlier)
		}
	}
	return found
}

// write repeats a batch until it is acknowledged: writing the same values again
// does no harm.
func (l *loader) write(ctx context.Context, b *loadBatch) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.timeout)
	defer cancel()
	db := l.db.WithContext(ctx)
	for {
		err := db.Write(&b.Batch, nil)
		if err == nil || !mayPass(err) {
			return err
		}
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
			return err
		}
	}
}

// mayPass tells whether a failed write may succeed when it is repeated.
func mayPass(err error) bool {
	for _, kind := range []error{skiff.ErrUnknownOutcome, skiff.ErrNoLeader, skiff.ErrUnreachable, skiff.ErrNotRunning} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// finish takes note of what became of a batch.
func (l *loader) finish(b *loadBatch, err error) {
	defer close(b.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		b.acked = true
		err = l.advance()
	} else {
		err = b.wrap(err)
	}
	if err != nil {
		l.cancel()
		if l.err == nil {
			l.err = err
		}
	}
}

// advance moves on over the batches before which everything is acknowledged.
func (l *loader) advance() error {
	line := l.resume.state.Line
	for len(l.underWay) > 0 && l.underWay[0].acked {
		b := l.underWay[0]
		l.underWay = l.underWay[1:]
		<-l.slots
		l.records += int64(b.Len())
		l.bytes += int64(b.bytes)
		line = b.last
	}
	return l.resume.advance(line)
}
