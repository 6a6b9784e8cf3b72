package skiff

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/overlay"
	"github.com/skiffdb/skiff/internal/storage"
)

// violated returns the position of the first condition that does not hold at this
// place in the log, that is, in the state with the batch so far; -1 if all hold.
func (a *application) violated(conditions []command.Condition) (int, error) {
	if len(conditions) > 0 && a.pending == nil {
		a.pending = overlay.New()
		for _, w := range a.writes {
			w.record(a.pending)
		}
		a.writes = nil
	}
	for i, c := range conditions {
		holds, err := a.holds(c)
		if err != nil || !holds {
			return i, err
		}
	}
	return -1, nil
}

func (a *application) holds(c command.Condition) (bool, error) {
	if c.Kind == command.CondRange {
		return a.holdsRange(c)
	}
	value, version, err := a.get(c.Key)
	present := true
	if errors.Is(err, leveldb.ErrNotFound) {
		present, err = false, nil
	}
	switch c.Kind {
	case command.CondVersion:
		return version == c.Version, err
	case command.CondPresent:
		return present, err
	case command.CondValue:
		return present && bytes.Equal(value, c.Value), err
	}
	return false, errors.Join(err, fmt.Errorf("condition of kind %d", c.Kind))
}

// get reads a key with its version, which is 0 where there is none.
func (a *application) get(key []byte) (value []byte, version uint64, err error) {
	stored, known, err := a.pending.Get(key)
	switch {
	case !known:
		return a.store.Get(key, nil)
	case err == nil:
		value, version = storage.DecodeValue(stored)
	}
	return value, version, err
}

// holdsRange looks at no more keys than the condition names, and one; in between,
// goleveldb may have to step over what was deleted and is not compacted yet.
func (a *application) holdsRange(c command.Condition) (bool, error) {
	r := &util.Range{Start: c.Key}
	if c.HasLimit {
		r.Limit = c.Limit
	}
	it := a.pending.NewIterator(storage.Versions(a.store.NewIterator(r, nil)), r)
	defer it.Release()
	d := storage.NewRangeDigest()
	for it.Next() {
		if d.Count() == c.Count {
			return false, nil
		}
		_, version := storage.DecodeValue(it.Value())
		d.Add(it.Key(), version)
	}
	return d.Count() == c.Count && bytes.Equal(d.Sum(), c.Digest), it.Error()
}
