package skiff

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
)

// A session that is silent for too many entries expires, whether anybody registers
// meanwhile or not, and whatever the batches.
func TestASilentSessionExpires(t *testing.T) {
	put := func(index, session, seq uint64) *raft.Log {
		return writeEntry(index, session, seq, 0, ops(putOp("k", fmt.Sprint(index))))
	}
	const alive, late = 1, 2
	end := uint64(late) + sessionLife // the last entry at which the second session lives
	for name, test := range map[string]struct {
		logs []*raft.Log
		want []string
		left []uint64
	}{
		"at the last entry": {
			[]*raft.Log{put(end, late, 1), put(end+1, late, 1)},
			[]string{fmt.Sprintf("1:@%d", end), fmt.Sprintf("1:@%d", end)}, []uint64{alive, late},
		},
		"one entry later": {
			[]*raft.Log{put(10, alive, 1), put(end+1, late, 1), put(end+2, alive, 1), put(end+3, late, 1)},
			[]string{"1:@10", "no session", "1:@10", "no session"}, []uint64{alive},
		},
		"to a question": {
			[]*raft.Log{resolveEntry(end+1, late, 1), resolveEntry(end+2, late, 1)},
			[]string{"no session", "no session"}, []uint64{alive},
		},
		"when another registers": {
			[]*raft.Log{put(10, alive, 1), registerEntry(end + 1), put(end+2, late, 1)},
			[]string{"1:@10", "", "no session"}, []uint64{alive, end + 1},
		},
		"all of them": {
			[]*raft.Log{registerEntry(3 * end)},
			[]string{""}, []uint64{3 * end},
		},
	} {
		logs := append([]*raft.Log{registerEntry(alive), registerEntry(late)}, test.logs...)
		for _, size := range []int{1, len(logs)} {
			m := freshMachine(t)
			var got []string
			for batch := range slices.Chunk(logs, size) {
				got = append(got, toldAll(m.results(t, batch...))...)
			}
			if !slices.Equal(got[2:], test.want) {
				t.Errorf("%s, batches of %d: %q, want %q", name, size, got[2:], test.want)
			}
			var left []uint64
			noError(t, m.store.Load().Sessions(func(id uint64, _ []byte) error { left = append(left, id); return nil }))
			if !slices.Equal(left, test.left) || len(m.sessions) != len(left) {
				t.Errorf("%s, batches of %d: sessions %v are stored, %d held; want %v", name, size, left, len(m.sessions), test.left)
			}
		}
	}
}

// What is appended never takes the place of anything, even of what somebody has put
// under the key that comes next.
func TestAnAppendOverwritesNothing(t *testing.T) {
	appendOp := command.Op{Kind: command.OpAppend, Key: []byte("e/"), Value: []byte("v")}
	key := func(index, seq uint64) string { return "e/" + command.AppendSuffix(index, seq) }
	m := freshMachine(t)
	got := m.results(t, registerEntry(1),
		writeEntry(2, 1, 1, 0, ops(appendOp), ops(appendOp)),
		writeEntry(3, 1, 3, 0, ops(putOp(key(5, 6), "planted"))),
		writeEntry(4, 1, 4, 0, ops(appendOp)),
		writeEntry(5, 1, 5, 0, ops(appendOp), ops(appendOp), ops(putOp(key(5, 8), "planted")), ops(appendOp)),
	)
	want := []string{"", "1:@2 2:@2", "3:@3", "4:@4", "5:@5 6:rejected@5/0 7:@5 8:rejected@5/0"}
	if got := toldAll(got); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	wantKeys := []string{
		key(2, 1) + "=v@2", key(2, 2) + "=v@2", key(4, 4) + "=v@4", key(5, 5) + "=v@5", key(5, 6) + "=planted@3", key(5, 8) + "=planted@5",
	}
	if got := contents(t, m.store.Load()); !slices.Equal(got, wantKeys) {
		t.Errorf("the state is %q, want %q", got, wantKeys)
	}
}

// The keys that Append makes are in the order of the log.
func TestAppendSuffixesAreOrdered(t *testing.T) {
	last := ""
	for _, index := range []uint64{0, 1, 2, 31, 32, 33, 255, 256, 1 << 20, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
		for _, seq := range []uint64{0, 1, 31, 32, 1<<32 - 1} {
			suffix := command.AppendSuffix(index, seq)
			if suffix <= last || len(suffix) != command.SuffixLen {
				t.Errorf("%q of %d, %d does not follow %q", suffix, index, seq, last)
			}
			last = suffix
		}
	}
}

// What sessions cost: the same writes applied under sessions, in groups, and without
// any. log-B/write and state-B/write are what is written to the log and to the state's
// journal, for each write.
func BenchmarkSessions(b *testing.B) {
	for _, writers := range []int{1, 64, 256} { // whose writes wait at the same time
		group := max(1, writers/maxInFlight)
		for _, sessions := range []bool{true, false} {
			name := fmt.Sprintf("writers=%d/sessions=%v", writers, sessions)
			b.Run(name, func(b *testing.B) { benchSessions(b, group, min(maxInFlight, writers), sessions) })
		}
	}
}

// benchSessions applies entries of group writes each, batch of them at a time.
func benchSessions(b *testing.B, group, batch int, sessions bool) {
	store, err := storage.OpenMemory(nil)
	noError(b, err)
	defer store.Close()
	m, err := newFSM(store, nil, func(err error) { b.Error(err) })
	noError(b, err)
	m.ApplyBatch([]*raft.Log{registerEntry(1)})

	var logBytes, stateBytes int
	rnd := rand.New(rand.NewPCG(1, 1))
	value := make([]byte, 256)
	index := uint64(1)
	b.ResetTimer()
	for done := 0; done < b.N; {
		a := m.begin()
		for i := range batch {
			index++
			var encoded [][]byte
			for range group {
				w := command.Write{Ops: []command.Op{{Key: fmt.Appendf(nil, "key-%06d", rnd.IntN(100_000)), Value: value}}}
				encoded = append(encoded, command.EncodeWrite(w))
			}
			first := (index-2)*uint64(group) + 1
			low := max(1, int64(first)-int64(i*group)) // of what is in flight with it
			cmd := command.EncodeWrites(1, first, uint64(low), nil, encoded)
			if !sessions {
				cmd = command.EncodeWrites(0, 0, 0, nil, encoded) // as short as can be
			}
			logBytes += len(cmd)
			noError(b, benchEntry(a, entry(index, cmd), sessions))
			done += group
		}
		noError(b, a.flush())
		stateBytes += a.batch.Size()
	}
	b.ReportMetric(float64(logBytes)/float64(b.N), "log-B/write")
	b.ReportMetric(float64(stateBytes)/float64(b.N), "state-B/write")
}

// benchEntry applies an entry, without sessions by leaving out all that they are for.
func benchEntry(a *application, l *raft.Log, sessions bool) error {
	if sessions {
		_, err := a.entry(l)
		return err
	}
	a.last = storage.Position{Index: l.Index, Term: l.Term}
	c, err := command.Decode(l.Data)
	if err != nil {
		return err
	}
	for _, w := range c.Writes {
		if _, err := a.effect(w, 0, l.Index); err != nil {
			return err
		}
	}
	return nil
}
