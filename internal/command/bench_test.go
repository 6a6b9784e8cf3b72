package command_test

import (
	"fmt"
	"testing"

	"github.com/skiffdb/skiff/internal/command"
)

// writesOf are n writes of one key each, encoded.
func writesOf(n int) [][]byte {
	writes := make([][]byte, n)
	for i := range writes {
		writes[i] = command.EncodeWrite(command.Write{Ops: []command.Op{{Key: fmt.Appendf(nil, "key-%012d", i), Value: make([]byte, 256)}}})
	}
	return writes
}

func batchOf(n int) command.Write {
	w := command.Write{}
	for i := range n {
		w.Ops = append(w.Ops, command.Op{Key: fmt.Appendf(nil, "key-%012d", i), Value: make([]byte, 256)})
	}
	return w
}

// hotPaths are what each write goes through, on some node or on all.
var hotPaths = []struct {
	name   string
	do     func()
	allocs float64 // at most
}{
	{"encode a write", func() func() {
		w := batchOf(1)
		return func() { command.EncodeWrite(w) }
	}(), 2},
	{"encode a batch of 100", func() func() {
		w := batchOf(100)
		return func() { command.EncodeWrite(w) }
	}(), 2},
	{"group 64 writes", func() func() {
		writes := writesOf(64)
		return func() { command.EncodeWrites(1, 2, 3, nil, writes) }
	}(), 2},
	{"decode 64 writes", func() func() {
		c := command.EncodeWrites(1, 2, 3, nil, writesOf(64))
		return func() { mustDecode(c) }
	}(), 3 + 64}, // the operations of each write
	{"decode a batch of 100", func() func() {
		c := command.EncodeWrites(1, 2, 3, nil, [][]byte{command.EncodeWrite(batchOf(100))})
		return func() { mustDecode(c) }
	}(), 12}, // a list that grows
}

func mustDecode(c []byte) {
	if _, err := command.Decode(c); err != nil {
		panic(err)
	}
}

func BenchmarkHotPaths(b *testing.B) {
	for _, p := range hotPaths {
		b.Run(p.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.do()
			}
		})
	}
}

func TestHotPathsAllocateLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector, a sync.Pool forgets at random")
	}
	for _, p := range hotPaths {
		if got := testing.AllocsPerRun(100, p.do); got > p.allocs {
			t.Errorf("%s: %v allocations, want %v at most", p.name, got, p.allocs)
		}
	}
}
