package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// Registers is a handful of keys that are put, got, deleted and compared and swapped.
// What the clients saw must be explainable by one order of operations, for each key:
// acknowledged writes included, whoever led meanwhile.
var Registers = Workload{"registers", func(s *scope) work {
	return &registers{scope: s, versions: map[string]uint64{}}
}}

const (
	registersInUse = 4
	// registerSteps is after how many steps other keys are used. What is pending in the
	// old ones makes a history hard to check, the more the longer it goes on.
	registerSteps = 2000

	// Clients in the history: after an unknown outcome, which never returns, one goes on
	// as another one; and who reads in the end.
	anotherClient = 1000
	finalReader   = 500
)

// registers is what clients did and saw.
type registers struct {
	*scope
	taken    int // steps
	ops      []porcupine.Operation
	versions map[string]uint64 // of values, none of which is written twice
}

func (r *registers) begin(context.Context) error { return nil }

func (r *registers) register(key int) []byte { return r.key(fmt.Sprint(key)) }

func (r *registers) client(c *client) (step func()) {
	cl := &registerClient{client: c, r: r, as: c.id, seen: map[int]versioned{}}
	return cl.step
}

// draw chooses a key.
func (r *registers) draw(cl *client) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken++
	return r.taken/registerSteps*registersInUse + cl.rnd.IntN(registersInUse)
}

func (r *registers) record(op porcupine.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// learn wants a value to have one version for ever.
func (r *registers) learn(value string, version uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.versions[value]
	if known != 0 && known != version || (value == "") != (version == 0) {
		r.wrong("%q has version %d, and had %d", value, version, known)
	}
	if value != "" {
		r.versions[value] = version
	}
}

// registerClient reads and writes at random.
type registerClient struct {
	*client
	r      *registers
	as     int               // in the history; another one after an unknown outcome, which never returns
	writes int               // so far
	seen   map[int]versioned // what it read last, by key
}

// versioned is a value, which is "" where there is none, and its version.
type versioned struct {
	value   string
	version uint64
}

func (cl *registerClient) step() {
	key := cl.r.draw(cl.client)
	ctx, cancel := cl.patience()
	defer cancel()
	db := cl.db().WithContext(ctx)
	switch p := cl.rnd.IntN(100); {
	case p < 25:
		cl.get(db, key)
	case p < 45:
		cl.look(ctx, db, key)
	case p < 65:
		value := cl.next()
		cl.write(registerInput{key: key, value: value}, func() error {
			return db.Put(cl.r.register(key), []byte(value), nil)
		})
	case p < 75:
		cl.write(registerInput{key: key}, func() error { return db.Delete(cl.r.register(key), nil) })
	default:
		cl.swap(ctx, db, key)
	}
}

// next is a value that nobody has written.
func (cl *registerClient) next() string {
	cl.writes++
	return fmt.Sprintf("%d.%d", cl.id, cl.writes)
}

func (cl *registerClient) get(db *skiff.DB, key int) {
	call := cl.r.now()
	value, err := db.Get(cl.r.register(key), nil)
	cl.r.gotten(cl.as, key, call, string(value), err)
}

// gotten records what a read gave. If it gave nothing, it says nothing.
func (r *registers) gotten(client, key int, call int64, value string, err error) {
	if !r.answered(err) {
		return
	}
	r.record(porcupine.Operation{
		ClientId: client, Call: call, Return: r.now(),
		Input: registerInput{action: readRegister, key: key}, Output: registerOutput{value: value},
	})
}

// look is get with the version.
func (cl *registerClient) look(ctx context.Context, db *skiff.DB, key int) {
	call := cl.r.now()
	value, version, err := db.GetVersioned(ctx, cl.r.register(key))
	cl.r.gotten(cl.as, key, call, string(value), err)
	if err == nil || err == leveldb.ErrNotFound {
		cl.seen[key] = versioned{string(value), version}
		cl.r.learn(string(value), version)
	}
}

// swap writes on condition that the key is as it was seen last, which may be long ago.
func (cl *registerClient) swap(ctx context.Context, db *skiff.DB, key int) {
	seen, name, value := cl.seen[key], cl.r.register(key), cl.next()
	var version uint64
	swapped := cl.write(registerInput{action: swapRegister, key: key, expect: seen.value, value: value}, func() (err error) {
		switch {
		case seen.version == 0 && cl.rnd.IntN(2) == 0:
			version, err = db.PutIfAbsent(ctx, name, []byte(value))
		case seen.version != 0 && cl.rnd.IntN(2) == 0:
			var b leveldb.Batch
			b.Put(name, []byte(value))
			version, err = db.WriteIf(ctx, &b, skiff.IfValue(name, []byte(seen.value)))
		default:
			version, err = db.CompareAndSwap(ctx, name, seen.version, []byte(value))
		}
		return err
	})
	if swapped {
		cl.r.learn(value, version)
		cl.seen[key] = versioned{value, version}
	} else {
		delete(cl.seen, key) // so that it does not go on in vain
	}
}

// write records a write, and tells whether it was applied. One that was certainly not is
// as if it had never been, unless it says something of what was there.
func (cl *registerClient) write(in registerInput, do func() error) bool {
	op := porcupine.Operation{ClientId: cl.as, Input: in, Call: cl.r.now()}
	err := do()
	o := cl.r.wrote(err)
	switch {
	case o == applied:
		op.Return, op.Output = cl.r.now(), registerOutput{swapped: true}
		cl.r.record(op)
	case o == unknown:
		op.Output = registerOutput{unknown: true}
		cl.r.record(op)
		cl.as += anotherClient
	case errors.Is(err, skiff.ErrConflict):
		op.Return, op.Output = cl.r.now(), registerOutput{}
		cl.r.record(op)
	}
	return o == applied
}

// check reads each key once more through each member, and looks for an order that
// explains all operations. Were an acknowledged write lost, these reads would not fit.
func (r *registers) check(ctx context.Context) {
	r.t.Helper()
	r.everywhere(func(node int, db *skiff.DB) {
		for key := range (r.taken/registerSteps + 1) * registersInUse {
			call := r.now()
			value, err := db.WithContext(ctx).Get(r.register(key), nil)
			r.gotten(finalReader+node, key, call, string(value), err)
			if err != nil && err != leveldb.ErrNotFound {
				r.wrong("node %d: %s cannot be read: %v", node, r.register(key), err)
			}
		}
	})
	result, info := checkRegisters(r.ops, r.now())
	if result == porcupine.Ok {
		return
	}
	r.wrong("not linearizable (%s), see %s", result, r.visualize(info))
}

// visualize writes a history to a file, for a person to look at.
func (r *registers) visualize(info porcupine.LinearizationInfo) string {
	// Not in t.TempDir, which is gone when one wants to look.
	f, err := os.CreateTemp("", "skiff-history-*.html")
	if err != nil {
		return err.Error()
	}
	defer f.Close() //nolint:errcheck // it is not data
	if err := porcupine.Visualize(registerModel, info, f); err != nil {
		return err.Error()
	}
	return filepath.ToSlash(f.Name())
}

// checkRegisters looks for an order of operations that explains them all. Those that have
// not returned may take effect at any time after they were called, or never, which is
// the same as after the end, when nobody reads any more.
func checkRegisters(ops []porcupine.Operation, end int64) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	for i := range ops {
		if ops[i].Return == 0 {
			ops[i].Return = end
		}
	}
	return porcupine.CheckOperationsVerbose(registerModel, ops, time.Minute)
}
