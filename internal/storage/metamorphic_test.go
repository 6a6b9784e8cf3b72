package storage

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
	"pgregory.net/rapid"
)

// A random history happens to a model in memory, to a store with the usual options, and
// to stores in settings that must not make a difference. What they say must be equal
// after every step.
//
// rapid makes the history and the settings from a seed, and shortens what has failed. It
// prints the steps, the settings and the seed. For longer:
//
//	go test ./internal/storage -run Metamorphic -rapid.checks 100000 -rapid.steps 100
func TestMetamorphic(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		tr := &trial{players: []*player{
			{name: "the model", world: newModel()},
			{name: "a store", world: newSubject(t, dir, setting{WriteBuffer: ample})},
		}}
		for range rapid.IntRange(1, 2).Draw(t, "further stores") {
			s := anySetting.Draw(t, "setting")
			tr.players = append(tr.players, &player{name: fmt.Sprintf("a store with %+v", s), world: newSubject(t, dir, s)})
		}
		defer tr.end(t)
		t.Repeat(tr.steps())
	})
}

// world is what a history happens to: a store in some setting, or the model of one.
type world interface {
	write(index uint64, edits []edit, marked bool) error
	mark(index uint64) error
	compact(slice util.Range) error
	sizes(slices []util.Range) (int, error)
	system() string
	now() reader
	view() (reader, error)
	// install moves the state to a new store, through a stream from a view, or from now. The
	// stream can have a flaw; then the state stays where it is.
	install(from reader, index uint64, chunkSize int, flaw flaw) error
	// reopen ends all views. With lossy, what is not synced may get lost.
	reopen(lossy bool) error
	close() error
}

// reader is a state as of some moment.
type reader interface {
	get(key []byte) ([]byte, uint64, error)
	has(key []byte) (bool, error)
	iterator(slice *util.Range) walker
	positions() (Position, Configuration, Marker, error)
	// content is the checksum, and how many pairs it saw, those that are a node's own but
	// the marker among them.
	content() (sum string, pairs int, err error)
	release()
}

// walker is what a test needs of an Iterator.
type walker interface {
	First() bool
	Last() bool
	Next() bool
	Prev() bool
	Seek(key []byte) bool
	Valid() bool
	Key() []byte
	Value() []byte
	Version() uint64
	Error() error
	Release()
}

// flaw is what is wrong with a stream.
type flaw int

const (
	flawless flaw = iota
	truncated
	ofAnotherIndex // than was announced
)

// player is a world, and what a user of it holds.
type player struct {
	name string
	world
	views   [3]reader
	walkers [3]walker
	sums    map[string]int
}

// trial is one history under way. Its indexes are those of a raft log: each step has
// its own.
type trial struct {
	players []*player
	index   uint64
}

// all lets all players do a step, and compares what they say of it.
func (tr *trial) all(t *rapid.T, step func(*player) string) {
	t.Helper()
	tr.index++
	want := step(tr.players[0])
	for _, p := range tr.players[1:] {
		if got := step(p); got != want {
			t.Fatalf("at step %d %s says\n%s\nand should say\n%s", tr.index, p.name, got, want)
		}
	}
}

func (tr *trial) end(t *rapid.T) {
	for _, p := range tr.players {
		for i := range p.views {
			p.hold(i, nil)
			p.walk(i, nil)
		}
		if err := p.close(); err != nil {
			t.Errorf("end of %s: %v", p.name, err)
		}
	}
}

// reader is the one in a slot, and the state as it is if there is none.
func (p *player) reader(slot int) reader {
	if slot < len(p.views) && p.views[slot] != nil {
		return p.views[slot]
	}
	return p.now()
}

// hold puts a view into a slot, in the place of another one.
func (p *player) hold(slot int, v reader) {
	if p.views[slot] != nil {
		p.views[slot].release()
	}
	p.views[slot] = v
}

// walk puts an iterator into a slot, in the place of another one.
func (p *player) walk(slot int, it walker) {
	if p.walkers[slot] != nil {
		p.walkers[slot].Release()
	}
	p.walkers[slot] = it
}

// number gives equal sums of one player equal numbers, so that those of different
// players can be compared: the model knows contents only.
func (p *player) number(sum string) int {
	if p.sums == nil {
		p.sums = map[string]int{}
	}
	if _, known := p.sums[sum]; !known {
		p.sums[sum] = len(p.sums)
	}
	return p.sums[sum]
}

// steps are what can happen.
func (tr *trial) steps() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"write":            tr.write,
		"maintain":         tr.maintain,
		"install":          tr.install,
		"reopen":           tr.reopen,
		"get":              tr.get,
		"list":             tr.list,
		"look":             tr.look,
		"open a view":      tr.openView,
		"open an iterator": tr.openIterator,
		"move":             tr.move,
		"release":          tr.release,
	}
}

func (tr *trial) write(t *rapid.T) {
	for _, edits := range rapid.SliceOfN(rapid.SliceOfN(anyEdit, 0, 10), 1, 5).Draw(t, "batches") {
		marked := rapid.IntRange(0, 4).Draw(t, "marked") == 4
		tr.all(t, func(p *player) string { return kind(p.write(tr.index, edits, marked)) })
	}
}

func (tr *trial) maintain(t *rapid.T) {
	what, slice := rapid.SampledFrom([]string{"mark", "compact", "estimate"}).Draw(t, "what"), rangeOf(t)
	tr.all(t, func(p *player) string {
		switch what {
		case "mark":
			return kind(p.mark(tr.index))
		case "compact":
			return kind(p.compact(slice))
		}
		n, err := p.sizes([]util.Range{slice, {}})
		return fmt.Sprint(n, kind(err))
	})
}

func (tr *trial) install(t *rapid.T) {
	from := anySlot.Draw(t, "from")
	chunk := rapid.SampledFrom([]int{1 << 20, 64, 1}).Draw(t, "chunk size")
	flaw := rapid.SampledFrom([]flaw{flawless, flawless, truncated, ofAnotherIndex}).Draw(t, "flaw")
	tr.all(t, func(p *player) string { return kind(p.install(p.reader(from), tr.index, chunk, flaw)) })
}

func (tr *trial) reopen(t *rapid.T) {
	marked := rapid.Bool().Draw(t, "marked")
	tr.all(t, func(p *player) string {
		if marked {
			if err := p.mark(tr.index); err != nil {
				return kind(err)
			}
		}
		return kind(p.reopen(marked))
	})
}

func (tr *trial) get(t *rapid.T) {
	from, key := anySlot.Draw(t, "from"), anyKey.Draw(t, "key")
	tr.all(t, func(p *player) string {
		r := p.reader(from)
		value, version, err := r.get(key)
		has, hasErr := r.has(key)
		return fmt.Sprintf("%s@%d %s, %v %s", brief(value), version, kind(err), has, kind(hasErr))
	})
}

func (tr *trial) list(t *rapid.T) {
	from, slice, backward := anySlot.Draw(t, "from"), anyRange.Draw(t, "range"), rapid.Bool().Draw(t, "backward")
	tr.all(t, func(p *player) string {
		it := p.reader(from).iterator(slice)
		defer it.Release()
		start, step := it.First, it.Next
		if backward {
			start, step = it.Last, it.Prev
		}
		var pairs strings.Builder
		for ok := start(); ok; ok = step() {
			fmt.Fprintln(&pairs, at(it))
		}
		return pairs.String() + kind(it.Error())
	})
}

// look is at what is not the user's, and at all.
func (tr *trial) look(t *rapid.T) {
	from := anySlot.Draw(t, "from")
	tr.all(t, func(p *player) string {
		applied, c, m, err := p.reader(from).positions()
		sum, pairs, sumErr := p.reader(from).content()
		return fmt.Sprintf("applied %v, configuration %d %s, marker %v of %d with %d %s, %s\n%s\ncontent %d, %d pairs, %s",
			applied, c.Index, brief(c.Data), m.Position, m.Applied, m.Configuration.Index, brief(m.Configuration.Data), kind(err),
			p.system(), p.number(sum), pairs, kind(sumErr))
	})
}

func (tr *trial) openView(t *rapid.T) {
	slot := anyFullSlot.Draw(t, "slot")
	tr.all(t, func(p *player) string {
		v, err := p.view()
		p.hold(slot, v)
		return kind(err)
	})
}

func (tr *trial) openIterator(t *rapid.T) {
	slot, from, slice := anyFullSlot.Draw(t, "slot"), anySlot.Draw(t, "from"), anyRange.Draw(t, "range")
	tr.all(t, func(p *player) string {
		p.walk(slot, p.reader(from).iterator(slice))
		return kind(p.walkers[slot].Error())
	})
}

func (tr *trial) move(t *rapid.T) {
	slot, moves := anyFullSlot.Draw(t, "slot"), rapid.SliceOfN(anyMove, 1, 12).Draw(t, "moves")
	tr.all(t, func(p *player) string {
		it := p.walkers[slot]
		if it == nil {
			return "there is none"
		}
		var said strings.Builder
		for _, m := range moves {
			fmt.Fprintln(&said, m, m.make(it), at(it), kind(it.Error()))
		}
		return said.String()
	})
}

// release leaves what it releases in its slot, to be used all the same.
func (tr *trial) release(t *rapid.T) {
	slot, view := anyFullSlot.Draw(t, "slot"), rapid.Bool().Draw(t, "view")
	tr.all(t, func(p *player) string {
		switch {
		case view && p.views[slot] != nil:
			p.views[slot].release()
		case !view && p.walkers[slot] != nil:
			p.walkers[slot].Release()
		}
		return ""
	})
}

// kind is what a user can tell of an error. Views are gone when they are released or
// their store is closed, whichever comes first: stores of different settings close at
// different times after another one has taken their place.
func kind(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, leveldb.ErrNotFound):
		return "not found"
	case errors.Is(err, ErrCorrupt):
		return "corrupt"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut off"
	case errors.Is(err, leveldb.ErrClosed), errors.Is(err, leveldb.ErrSnapshotReleased), errors.Is(err, leveldb.ErrIterReleased):
		return "gone"
	}
	return err.Error()
}

// at is what an iterator shows.
func at(it walker) string {
	shown := fmt.Sprintf("%q=%s@%d", it.Key(), brief(it.Value()), it.Version())
	if !it.Valid() {
		return "nothing, with " + shown
	}
	return shown
}

// brief is a value, so that a difference can be read.
func brief(value []byte) string {
	if len(value) <= 40 {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%q and so on (%d bytes, CRC %08x)", value[:10], len(value), crc32.ChecksumIEEE(value))
}

// The keys are few, so that they meet, and stand at the edges of what there is.
var (
	anyKey = rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{'a', 'b', 0x00, 0xff}), 0, 3), func(key []byte) []byte {
		return append([]byte{}, key...) // never nil
	})
	anyRange = rapid.Custom(func(t *rapid.T) *util.Range {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		slice := rangeOf(t)
		return &slice
	})
	// A slot that is not full stands for the state as it is.
	anySlot     = rapid.IntRange(0, len(player{}.views))
	anyFullSlot = rapid.IntRange(0, len(player{}.views)-1)
)

// rangeOf draws a range, whose ends may be missing, or stand the wrong way round.
func rangeOf(t *rapid.T) (slice util.Range) {
	if rapid.Bool().Draw(t, "start") {
		slice.Start = anyKey.Draw(t, "from")
	}
	if rapid.Bool().Draw(t, "limit") {
		slice.Limit = anyKey.Draw(t, "to")
	}
	return slice
}

// move is a movement of an iterator.
type move struct {
	name string
	key  string
}

var anyMove = rapid.Custom(func(t *rapid.T) move {
	m := move{name: rapid.SampledFrom([]string{"Next", "Prev", "Seek", "First", "Last"}).Draw(t, "move")}
	if m.name == "Seek" {
		m.key = string(anyKey.Draw(t, "key"))
	}
	return m
})

func (m move) make(it walker) bool {
	switch m.name {
	case "Next":
		return it.Next()
	case "Prev":
		return it.Prev()
	case "First":
		return it.First()
	case "Last":
		return it.Last()
	}
	return it.Seek([]byte(m.key))
}

// edit is one line of a batch.
type edit struct {
	what  string
	key   string
	word  string
	times int // the word is in the value
	id    uint64
}

func (e edit) value() string { return strings.Repeat(e.word, e.times) }

// sessionIDs are neighbours, and one that needs all its bytes.
var sessionIDs = []uint64{1, 2, 255, 256, 1 << 63}

var anyEdit = rapid.Custom(func(t *rapid.T) edit {
	e := edit{what: rapid.SampledFrom([]string{
		"put", "put", "put", "put", "put", "delete", "delete", "session", "end session", "admit", "cluster", "configure",
	}).Draw(t, "what")}
	switch e.what {
	case "put", "delete", "admit":
		e.key = string(anyKey.Draw(t, "key"))
	case "session", "end session":
		e.id = rapid.SampledFrom(sessionIDs).Draw(t, "id")
	}
	if e.what != "delete" && e.what != "end session" {
		e.word = rapid.SampledFrom([]string{"a", "b", "cd"}).Draw(t, "word")
		// Sometimes as much as the write buffer has, or a table.
		e.times = rapid.SampledFrom([]int{1, 1, 1, 0, 100, 3000}).Draw(t, "times")
	}
	if e.what == "cluster" {
		e.times++ // it has an id, or none
	}
	return e
})

func (e edit) fill(b *Batch, index uint64) error {
	switch e.what {
	case "put":
		b.Put([]byte(e.key), []byte(e.value()), index)
	case "delete":
		b.Delete([]byte(e.key))
	case "session":
		b.SetSession(e.id, []byte(e.value()))
	case "end session":
		b.DeleteSession(e.id)
	case "admit":
		b.SetAdmitted(e.key, []byte(e.value()))
	case "cluster":
		b.SetClusterID([]byte(e.value()))
	case "configure":
		return b.SetConfiguration(Configuration{index, []byte(e.value())})
	}
	return nil
}
