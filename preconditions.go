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
	switch c.Kind {
	case command.CondRange:
		return a.holdsRange(c)
	case command.CondVersion:
		version, err := a.version(c.Key)
		return version == c.Version, err
	case command.CondPresent:
		version, err := a.version(c.Key)
		return version != 0, err
	case command.CondValue:
		value, version, err := a.get(c.Key)
		return version != 0 && bytes.Equal(value, c.Value), err
	}
	return false, fmt.Errorf("condition of kind %d", c.Kind)
}

// get reads a key with its version, which is 0 where there is none.
func (a *application) get(key []byte) (value []byte, version uint64, err error) {
	stored, known, err := a.pending.Get(key)
	switch {
	case !known:
		value, version, err = a.store.Get(key, nil)
		a.versions[string(key)] = version
	case err == nil:
		value, version = storage.DecodeValue(stored)
	}
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, 0, nil
	}
	return value, version, err
}

// version reads the version alone, and looks only once for a key that the batch does not
// write: goleveldb reads its value with it.
func (a *application) version(key []byte) (uint64, error) {
	if _, known, _ := a.pending.Get(key); !known {
		if version, known := a.versions[string(key)]; known {
			return version, nil
		}
	}
	_, version, err := a.get(key)
	return version, err
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
