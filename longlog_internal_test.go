package skiff

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
)

// The same of logs that are longer than what a session remembers, with more at once than
// is written to the state at once, and of writers that send again what they have sent.
func TestTheSameLongLogGivesTheSameState(t *testing.T) {
	for seed := range uint64(2) {
		logs := longLog(rand.New(rand.NewPCG(seed, 0)))
		want, one := replay(t, logs, func() int { return 1 }, nil)
		sum := one.checksum(t)
		for name, restart := range map[string]func(*machine) *machine{
			"without restarts": nil,
			"with restarts":    func(m *machine) *machine { return newMachine(t, m.store.Load()) },
			"with installs":    func(m *machine) *machine { return newMachine(t, install(t, m.store.Load())) },
		} {
			r := rand.New(rand.NewPCG(seed, 1))
			got, m := replay(t, logs, func() int { return 1 + r.IntN(150) }, restart)
			for i := range logs {
				if got[i] != want[i] {
					t.Fatalf("seed %d, %s: entry %d gave %q, one by one %q", seed, name, i, got[i], want[i])
				}
			}
			if m.checksum(t) != sum {
				t.Errorf("seed %d, %s: another checksum than one by one", seed, name)
			}
		}
	}
}

// replay applies a log in batches, and restarts the machine after some of them.
func replay(t *testing.T, logs []*raft.Log, size func() int, restart func(*machine) *machine) ([]string, *machine) {
	m := freshMachine(t)
	var results []string
	for len(logs) > 0 {
		n := min(size(), len(logs))
		results = append(results, toldAll(m.results(t, logs[:n]...))...)
		logs = logs[n:]
		if restart != nil && n%2 == 0 {
			m = restart(m)
		}
	}
	return results, m
}

// writer sends commands under a session.
type writer struct {
	session, next, low uint64
	sent               [][]byte
}

// longLog is what a few writers send, at random.
func longLog(r *rand.Rand) (logs []*raft.Log) {
	var writers []*writer
	for index := uint64(1); index <= 1000; index++ {
		if len(writers) < 4 || r.IntN(200) == 0 {
			writers = append(writers, &writer{session: index, next: 1})
			logs = append(logs, registerEntry(index))
			continue
		}
		w := writers[r.IntN(len(writers))]
		if r.IntN(500) > 0 {
			w = writers[0] // it has more under way than is remembered
		}
		logs = append(logs, entry(index, w.send(r, index)))
	}
	return logs
}

func (w *writer) send(r *rand.Rand, index uint64) []byte {
	switch p := r.IntN(100); {
	case p < 10 && len(w.sent) > 0:
		return w.sent[r.IntN(len(w.sent))]
	case p < 20:
		return command.EncodeResolve(w.session, r.Uint64N(w.next+3))
	case p < 21:
		w.low = w.next - r.Uint64N(w.next)
	}
	var kept []command.Span
	if w.low > 10 {
		kept = []command.Span{{First: w.low - 9, Count: 3}, {First: w.low - 2, Count: 1}}
	}
	var writes [][]byte
	for range 1 + r.IntN(3) {
		writes = append(writes, command.EncodeWrite(randomWrite(r, index)))
	}
	cmd := command.EncodeWrites(w.session, w.next, w.low, kept, writes)
	w.next += uint64(len(writes) + r.IntN(2)) // one may be lost
	w.sent = append(w.sent, cmd)
	return cmd
}

// randomWrite has conditions that hold as often as not.
func randomWrite(r *rand.Rand, index uint64) (w command.Write) {
	key := func() []byte { return fmt.Appendf(nil, "key-%d", r.IntN(20)) }
	for range r.IntN(3) {
		c := command.Condition{Kind: command.ConditionKind(1 + r.IntN(4)), Key: key(), Value: []byte{byte(r.IntN(2))}}
		if c.Kind == command.CondVersion && r.IntN(2) == 0 {
			c.Version = r.Uint64N(index)
		}
		if c.Kind == command.CondRange { // of no keys
			c.Digest = storage.NewRangeDigest().Sum()
			c.Limit, c.HasLimit = append(slices.Clone(c.Key), 0), true
		}
		w.Conditions = append(w.Conditions, c)
	}
	for range 1 + r.IntN(3) {
		op := command.Op{Kind: command.OpKind(r.IntN(3)), Key: key()}
		switch {
		case op.Kind == command.OpDelete:
		case r.IntN(300) == 0:
			op.Value = bytes.Repeat([]byte{1}, maxStateBatch/3)
		default:
			op.Value = []byte{byte(r.IntN(2))}
		}
		w.Ops = append(w.Ops, op)
	}
	return w
}
