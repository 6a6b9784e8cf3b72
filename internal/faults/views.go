package faults

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// Views are snapshots, iterators and transactions that are held while others write and
// faults come and go. What they show is the state at one index, and each time the same.
// When their node has gone they say so, and show nothing else.
var Views = Workload{"views", func(s *scope) work { return &views{scope: s} }}

const (
	// viewsHeld is how many views a client holds.
	viewsHeld = 3
	// viewKeys are written together, with one number.
	viewKeys = 8
	// viewPadding makes a view more than what a client fetches at once.
	viewPadding = 4 << 10
)

// views is what is written, and held.
type views struct {
	*scope
	number  int
	holders []*holder // each is its client's, until that has stopped
}

// holder is a client and the views that it holds.
type holder struct {
	*client
	v    *views
	held []*heldView
}

// begin is the first write.
func (v *views) begin(ctx context.Context) error { return v.write(v.nodes.Client().WithContext(ctx)) }

func (v *views) client(cl *client) (step func()) {
	h := &holder{client: cl, v: v}
	v.holders = append(v.holders, h)
	return h.step
}

func (h *holder) step() {
	switch p, n := h.rnd.IntN(100), len(h.held); {
	case n < viewsHeld && p < 20:
		h.open()
	case n > 0 && p < 40:
		h.look(h.rnd.IntN(n), h.rnd.IntN(30) == 0)
	default:
		ctx, cancel := h.patience()
		defer cancel()
		h.v.wrote(h.v.write(h.db().WithContext(ctx)))
	}
}

// write gives all keys a number that they have not had.
func (v *views) write(db *skiff.DB) error {
	v.mu.Lock()
	v.number++
	n := v.number
	v.mu.Unlock()
	value := slices.Grow(strconv.AppendInt(nil, int64(n), 10), viewPadding)
	value = append(value, make([]byte, viewPadding)...)
	var b leveldb.Batch
	for i := range viewKeys {
		b.Put(v.key(fmt.Sprintf("all-%d", i)), value)
	}
	// So that the keys are not always the same ones.
	b.Put(v.key(fmt.Sprintf("some-%d", n%5)), value)
	b.Delete(v.key(fmt.Sprintf("some-%d", (n+2)%5)))
	return db.Write(&b, nil)
}

// open opens a view, and reads it for the first time.
func (h *holder) open() {
	db, stale := h.anyDB(), h.rnd.IntN(3) == 0
	if stale {
		db = db.WithConsistency(skiff.Stale)
	}
	view, err := viewKinds[h.rnd.IntN(len(viewKinds))](db, h.v)
	if !h.v.answered(err) {
		return
	}
	if view.want, err = view.read(); !h.v.answered(err) {
		view.release()
		return
	}
	if wrong := checkView(view.want, h.v.prefix, stale); wrong != "" {
		h.v.wrong("%s, stale: %t: %s", view.kind, stale, wrong)
	}
	h.held = append(h.held, view)
}

// look reads a view again, and perhaps for the last time.
func (h *holder) look(i int, last bool) {
	view := h.held[i]
	got, err := view.read()
	if h.v.answered(err) {
		if wrong := compareViews(view.want, got); wrong != "" {
			h.v.wrong("%s: %s", view.kind, wrong)
		}
	}
	if err != nil || last {
		view.release()
		h.held = slices.Delete(h.held, i, i+1)
	}
}

// check reads all that is still held.
func (v *views) check(context.Context) {
	v.t.Helper()
	for _, h := range v.holders {
		for len(h.held) > 0 {
			h.look(0, true)
		}
	}
}
