package skiff

import (
	"bytes"
	"fmt"

	"github.com/skiffdb/skiff/internal/command"
)

// limits bound what a write may be, in bytes, see [Options]. They hold at the handle that
// it is made with, and again at the node that a client brings it to.
type limits struct {
	key, value, batch, reads int // bytes
}

// opOverhead is more than the encoding of a write adds to its key and value.
const opOverhead = 16

func (l limits) check(w command.Write) error {
	total := 0
	for _, op := range w.Ops {
		key := len(op.Key)
		if op.Kind == command.OpAppend {
			key += command.SuffixLen
		}
		total += key + len(op.Value) + opOverhead
		switch {
		case key > l.key:
			return fmt.Errorf("key of %d bytes, the limit is %d (MaxKeySize)", key, l.key)
		case len(op.Value) > l.value:
			return fmt.Errorf("value of %d bytes, the limit is %d (MaxValueSize)", len(op.Value), l.value)
		}
	}
	for _, c := range w.Conditions {
		total += len(c.Key) + len(c.Value) + len(c.Limit) + len(c.Digest) + 2*opOverhead
	}
	if readCost(w.Conditions) > l.reads {
		return l.readTooMuch()
	}
	if err := checkOnce(w.Conditions); err != nil {
		return err
	}
	if total > l.batch {
		return fmt.Errorf("batch of %d bytes, the limit is %d (MaxBatchSize)", total, l.batch)
	}
	return nil
}

// checkOnce makes sure that the state machine reads nothing again and again: ranges are
// apart, and each key's value is compared once. What a transaction has read is so.
func checkOnce(conditions []command.Condition) error {
	compared := map[string]bool{}
	var end []byte
	open := false
	for _, c := range conditions {
		switch {
		case c.Kind == command.CondValue && compared[string(c.Key)]:
			return fmt.Errorf("two conditions on the value of key %.100q", c.Key)
		case c.Kind == command.CondValue:
			compared[string(c.Key)] = true
		case c.Kind == command.CondRange && (open || bytes.Compare(c.Key, end) < 0):
			return fmt.Errorf("ranges that overlap at key %.100q", c.Key)
		case c.Kind == command.CondRange:
			end, open = c.Limit, !c.HasLimit
		}
	}
	return nil
}

// checkAll checks the writes of one command: also that the state machine does not have to
// read more for all of them than a proposer would group.
func (l limits) checkAll(writes []command.Write) error {
	reads := 0
	for _, w := range writes {
		if err := l.check(w); err != nil {
			return err
		}
		reads += checkCost(w.Conditions)
	}
	if len(writes) > 1 && reads > maxProposalReads {
		return fmt.Errorf("writes whose conditions read %d bytes, together at most %d", reads, maxProposalReads)
	}
	return nil
}

func (l limits) readTooMuch() error {
	return fmt.Errorf("what was read is more than the limit of %d bytes (MaxReadSet)", l.reads)
}
