package lossfs

import (
	"maps"
	"math/rand/v2"
)

// directory is the names in a directory.
type directory struct {
	names   map[string]*entry
	synced  map[string]*entry
	pending []change // since the last sync, in their order
}

// change is names that change together, or not at all. nil: the name goes.
type change map[string]*entry

func newDirectory() *directory {
	return &directory{names: map[string]*entry{}, synced: map[string]*entry{}}
}

func (c change) apply(names map[string]*entry) {
	for name, e := range c {
		if e == nil {
			delete(names, name)
		} else {
			names[name] = e
		}
	}
}

func (d *directory) change(c change) {
	c.apply(d.names)
	d.pending = append(d.pending, c)
}

func (d *directory) sync() { d.synced, d.pending = maps.Clone(d.names), nil }

// crash leaves what was synced, and the changes that are kept.
func (d *directory) crash(random *rand.Rand, keep func(*rand.Rand) bool) {
	for _, c := range d.pending {
		if keep(random) {
			c.apply(d.synced)
		}
	}
	d.names, d.pending = maps.Clone(d.synced), nil
}
