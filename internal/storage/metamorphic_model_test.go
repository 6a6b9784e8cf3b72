package storage

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// model is a world in its plainest form: maps, which are copied for each view.
type model struct {
	state modelState
	views *bool // whether those opened since the last reopening are gone
}

type modelState struct {
	user     map[string]modelValue
	sessions map[uint64]string
	admitted map[string]string
	cluster  *string
	applied  Position
	config   Configuration
	marker   Marker
}

type modelValue struct {
	value   string
	version uint64
}

func newModel() *model {
	return &model{
		state: modelState{user: map[string]modelValue{}, sessions: map[uint64]string{}, admitted: map[string]string{}},
		views: new(bool),
	}
}

func (s modelState) clone() modelState {
	s.user, s.sessions, s.admitted = maps.Clone(s.user), maps.Clone(s.sessions), maps.Clone(s.admitted)
	return s
}

func (m *model) write(index uint64, edits []edit, marked bool) error {
	s := &m.state
	for _, e := range edits {
		switch e.what {
		case "put":
			s.user[e.key] = modelValue{e.value(), index}
		case "delete":
			delete(s.user, e.key)
		case "session":
			s.sessions[e.id] = e.value()
		case "end session":
			delete(s.sessions, e.id)
		case "admit":
			s.admitted[e.key] = e.value()
		case "cluster":
			id := e.value()
			s.cluster = &id
		case "configure":
			s.config = Configuration{index, []byte(e.value())}
		}
	}
	s.applied = Position{index, term}
	if marked {
		return m.mark(index)
	}
	return nil
}

func (m *model) mark(index uint64) error {
	m.state.marker = Marker{Position{index, term}, m.state.applied.Index, m.state.config}
	return nil
}

func (m *model) install(from reader, index uint64, _ int, flaw flaw) error {
	source := from.(*modelView)
	switch {
	case source.gone():
		return leveldb.ErrClosed
	case flaw == truncated:
		return io.ErrUnexpectedEOF
	case flaw == ofAnotherIndex:
		return ErrCorrupt
	}
	m.state = source.state.clone()
	return m.mark(index)
}

func (m *model) reopen(bool) error {
	*m.views, m.views = true, new(bool)
	return nil
}

func (*model) compact(util.Range) error               { return nil }
func (*model) sizes(slices []util.Range) (int, error) { return len(slices), nil }
func (*model) close() error                           { return nil }
func (m *model) now() reader                          { return &modelView{m.state, m.views, false} }

func (m *model) view() (reader, error) { return &modelView{m.state.clone(), m.views, false}, nil }

func (m *model) system() string {
	id := "none"
	if m.state.cluster != nil {
		id = *m.state.cluster
	}
	return systemText(id, m.state.sessions, m.state.admitted)
}

// systemText is what there is of the system's values besides positions.
func systemText(cluster string, sessions map[uint64]string, admitted map[string]string) string {
	return fmt.Sprintf("cluster %q, sessions %#v, admitted %q", cluster, sessions, admitted)
}

type modelView struct {
	state    modelState
	closed   *bool
	released bool
}

func (v *modelView) gone() bool { return *v.closed || v.released }
func (v *modelView) release()   { v.released = true }

func (v *modelView) get(key []byte) ([]byte, uint64, error) {
	if v.gone() {
		return nil, 0, leveldb.ErrClosed
	}
	found, ok := v.state.user[string(key)]
	if !ok {
		return nil, 0, leveldb.ErrNotFound
	}
	return []byte(found.value), found.version, nil
}

func (v *modelView) has(key []byte) (bool, error) {
	if v.gone() {
		return false, leveldb.ErrClosed
	}
	_, ok := v.state.user[string(key)]
	return ok, nil
}

func (v *modelView) positions() (Position, Configuration, Marker, error) {
	if v.gone() {
		return Position{}, Configuration{}, Marker{}, leveldb.ErrClosed
	}
	return v.state.applied, v.state.config, v.state.marker, nil
}

func (v *modelView) content() (string, int, error) {
	if v.gone() {
		return "", 0, leveldb.ErrClosed
	}
	s := v.state
	pairs := len(s.user) + len(s.sessions) + len(s.admitted)
	cluster := "none"
	if s.cluster != nil {
		pairs++
		cluster = "is " + *s.cluster
	}
	for _, index := range []uint64{s.applied.Index, s.config.Index} {
		if index > 0 {
			pairs++
		}
	}
	return fmt.Sprintf("%#v %#v %q %q", s.user, s.sessions, s.admitted, cluster), pairs, nil
}

func (v *modelView) iterator(slice *util.Range) walker {
	it := &modelIterator{values: map[string]modelValue{}, closed: v.closed, at: -1}
	if v.gone() {
		it.err = leveldb.ErrClosed
		return it
	}
	for key, value := range v.state.user {
		if slice == nil || key >= string(slice.Start) && (slice.Limit == nil || key < string(slice.Limit)) {
			it.keys = append(it.keys, key)
			it.values[key] = value
		}
	}
	slices.Sort(it.keys)
	return it
}

// modelIterator stands before the first key (-1), on one, or after the last. It shows
// what there was when it was opened.
type modelIterator struct {
	keys     []string
	values   map[string]modelValue
	at       int
	closed   *bool
	released bool
	err      error
}

// move goes to a place, or to the nearest one.
func (it *modelIterator) move(to int) bool {
	if it.Error() == nil && it.released {
		it.err = leveldb.ErrIterReleased
	}
	if it.err == nil {
		it.at = min(max(to, -1), len(it.keys))
	}
	return it.Valid()
}

func (it *modelIterator) First() bool { return it.move(0) }
func (it *modelIterator) Last() bool  { return it.move(len(it.keys) - 1) }
func (it *modelIterator) Next() bool  { return it.move(it.at + 1) }
func (it *modelIterator) Prev() bool  { return it.move(it.at - 1) }

func (it *modelIterator) Seek(key []byte) bool {
	to, _ := slices.BinarySearch(it.keys, string(key))
	return it.move(to)
}

func (it *modelIterator) Error() error {
	if *it.closed && !it.released {
		it.err = leveldb.ErrClosed
	}
	return it.err
}

func (it *modelIterator) Valid() bool {
	return it.Error() == nil && !it.released && 0 <= it.at && it.at < len(it.keys)
}

func (it *modelIterator) Key() []byte {
	if !it.Valid() {
		return nil
	}
	return []byte(it.keys[it.at])
}

func (it *modelIterator) Value() []byte   { return []byte(it.shown().value) }
func (it *modelIterator) Version() uint64 { return it.shown().version }

func (it *modelIterator) shown() modelValue {
	if !it.Valid() {
		return modelValue{}
	}
	return it.values[it.keys[it.at]]
}

func (it *modelIterator) Release() {
	_ = it.Error() // which is the last one to come of the store's end
	it.released = true
}
