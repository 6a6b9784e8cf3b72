package skifftest

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/simdisk"
)

// member is one node of a cluster, whether it runs or not.
type member struct {
	life atomic.Pointer[life] // nil while it is down
	disk *simdisk.Disk

	// What only the test's own goroutine uses.
	peers    []string // of a founder, the others
	wiped    bool     // and has not settled since
	nonvoter bool
}

// life is a node from a start to its end.
type life struct {
	node *skiff.Node
	db   *skiff.DB
}

// members are the nodes that belong to a cluster.
type members struct {
	mu  sync.Mutex
	all []*member // by number; nil for who has left
}

// add gives a node its number.
func (m *members) add(disk *simdisk.Disk) (i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, &member{disk: disk})
	return len(m.all) - 1
}

func (m *members) remove(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[i] = nil
}

// get is nil if there is no such node.
func (m *members) get(i int) *member {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i < 0 || i >= len(m.all) {
		return nil
	}
	return m.all[i]
}

func (m *members) numbers() (numbers []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, member := range m.all {
		if member != nil {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

func (m *members) addresses() (addresses []string) {
	for _, i := range m.numbers() {
		addresses = append(addresses, addressOf(i))
	}
	return addresses
}

// others are the addresses of all but one.
func (m *members) others(i int) []string {
	return slices.DeleteFunc(m.addresses(), func(a string) bool { return a == addressOf(i) })
}
