package cluster

import (
	"testing"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/nemesis"
)

// Harsh is a [Lossy] cluster whose network can be bad: a proxy stands between all nodes,
// and between them and clients.
type Harsh struct{ Lossy }

var _ nemesis.Degrader = Harsh{}

// NewHarsh is NewLossy with such a network.
func NewHarsh(t testing.TB, o Options) Harsh {
	t.Helper()
	o.proxied = true
	return Harsh{NewLossy(t, o)}
}

// Degrade implements nemesis.Degrader.
func (c Harsh) Degrade(l nemesis.Link) { c.proxy.Degrade(memnet.Link(l)) }

// Heal implements nemesis.System.
func (c Harsh) Heal() {
	c.proxy.Degrade(memnet.Link{})
	c.Lossy.Heal()
}
