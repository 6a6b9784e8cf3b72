package main

import (
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
)

// loadBatch is a part of an input that is written at once.
type loadBatch struct {
	leveldb.Batch
	input       string
	first, last int64 // lines
	bytes       int
	keys        map[string]struct{}

	done  chan struct{} // closed when the batch is acknowledged or has failed
	acked bool
}

func newLoadBatch(input string) *loadBatch {
	return &loadBatch{input: input, keys: map[string]struct{}{}, done: make(chan struct{})}
}

// full tells whether r has to go into another batch. One record always fits.
func (b *loadBatch) full(r record, o *loadOptions) bool {
	return b.Len() > 0 && (b.Len() >= o.records || b.bytes+len(r.key)+len(r.value) > o.bytes)
}

func (b *loadBatch) add(r record, line int64) {
	if b.Len() == 0 {
		b.first = line
	}
	b.last = line
	b.bytes += len(r.key) + len(r.value)
	b.keys[string(r.key)] = struct{}{}
	b.Put(r.key, r.value)
}

func (b *loadBatch) overlaps(other *loadBatch) bool {
	for key := range other.keys {
		if _, both := b.keys[key]; both {
			return true
		}
	}
	return false
}

// wrap says which lines could not be written.
func (b *loadBatch) wrap(err error) error {
	if b.first == b.last {
		return &lineError{b.input, b.first, err}
	}
	return fmt.Errorf("%s: lines %d to %d: %w", b.input, b.first, b.last, err)
}
