package skiff

import (
	"context"
	"errors"
	"slices"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/command"
)

// Condition is something that must hold for a batch to be applied, see [DB.WriteIf].
type Condition struct {
	condition command.Condition
	once      bool // made by Once; there is no condition then
	token     Token
}

// IfAbsent holds if key does not exist.
func IfAbsent(key []byte) Condition { return IfVersion(key, 0) }

// IfPresent holds if key exists.
func IfPresent(key []byte) Condition {
	return Condition{condition: command.Condition{Kind: command.CondPresent, Key: slices.Clone(key)}}
}

// IfValue holds if key exists and has this value.
func IfValue(key, value []byte) Condition {
	return Condition{condition: command.Condition{Kind: command.CondValue, Key: slices.Clone(key), Value: slices.Clone(value)}}
}

// IfVersion holds if key has not been written since it had this version, as told by
// [DB.GetVersioned]; 0 means that it does not exist.
func IfVersion(key []byte, version uint64) Condition {
	return Condition{condition: command.Condition{Kind: command.CondVersion, Key: slices.Clone(key), Version: version}}
}

// GetVersioned returns the value of key and its version, which is the index of the
// log entry that wrote it: each write of a key gives it a greater one, also after it was
// deleted. Where there is no such key the error is leveldb.ErrNotFound and the version 0.
// The caller owns the value.
func (db *DB) GetVersioned(ctx context.Context, key []byte) (value []byte, version uint64, err error) {
	if err := db.ok(); err != nil {
		return nil, 0, err
	}
	value, version, err = db.backend.get(ctx, db.consistency, key, nil)
	if err == leveldb.ErrNotFound {
		return nil, 0, leveldb.ErrNotFound
	}
	return value, version, db.wrap("get", err)
}

// WriteIf applies a batch as a whole if all conditions hold, and otherwise nothing of
// it; the error is then [ErrConflict]. They are checked at the batch's place among
// all writes, on each node alike: nothing comes between the check and the writes. A
// nil or empty batch only checks. The version is that of all keys written; no other write
// of one of them has the same (with [Once], if that is so of the write that came first).
func (db *DB) WriteIf(ctx context.Context, batch *leveldb.Batch, conditions ...Condition) (version uint64, err error) {
	ops, err := opsOf(batch)
	if err != nil {
		return 0, db.wrap("write", because(ErrNotApplied, err))
	}
	return db.writeIf(ctx, "write", ops, conditions...)
}

// PutIfAbsent sets the value of key, which must not exist. If it does, the error is
// [ErrConflict].
func (db *DB) PutIfAbsent(ctx context.Context, key, value []byte) (version uint64, err error) {
	return db.writeIf(ctx, "put", []command.Op{{Key: key, Value: value}}, IfAbsent(key))
}

// CompareAndSwap sets the value of key if its version is the given one, 0 meaning
// that it does not exist, and returns the new version. If it is another one, the
// error is [ErrConflict].
func (db *DB) CompareAndSwap(ctx context.Context, key []byte, version uint64, value []byte) (newVersion uint64, err error) {
	return db.writeIf(ctx, "compare and swap", []command.Op{{Key: key, Value: value}}, IfVersion(key, version))
}

// Append puts value under a key that it makes: prefix, followed by 20 characters from
// 0 to 9 and a to v. The key has not been written before, and what is appended after
// Append has returned, on any node, gets a greater one: the order of the keys is the
// order in which the cluster agreed on them. So an iterator from the last key seen
// shows all that came since.
//
// After [ErrUnknownOutcome], [DB.Resolve] tells whether the value was appended, but not
// under which key: what has to be found then needs an id of its own in the value.
func (db *DB) Append(ctx context.Context, prefix, value []byte) (key []byte, err error) {
	w := command.Write{Ops: []command.Op{{Kind: command.OpAppend, Key: prefix, Value: value}}}
	r, err := db.propose(ctx, "append", newProposal(w))
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(prefix), command.AppendSuffix(r.version, r.seq)...), nil
}

func (db *DB) writeIf(ctx context.Context, op string, ops []command.Op, conditions ...Condition) (uint64, error) {
	w := command.Write{Ops: ops}
	var once *Token
	for _, c := range conditions {
		switch {
		case c.once && once != nil:
			return 0, db.wrap(op, because(ErrRejected, errors.New("two tokens for one write")))
		case c.once:
			once = &c.token
		case c.condition.Kind == 0:
			return 0, db.wrap(op, because(ErrRejected, errors.New("a condition that says nothing")))
		default:
			w.Conditions = append(w.Conditions, c.condition)
		}
	}
	p := newProposal(w)
	p.versioned, p.once = true, once
	r, err := db.propose(ctx, op, p)
	return r.version, err
}
