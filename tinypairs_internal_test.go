package skiff

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/memnet"
)

// Each pair and condition counts for at least what its encoding takes, so that
// what passes the limits fits into a frame, however many tiny ones it has.
func TestWhatPassesTheLimitsFitsAFrame(t *testing.T) {
	t.Parallel()
	const n, head = 20, 64 + 18*command.MaxKept // of the command
	kept := slices.Repeat([]command.Span{{First: math.MaxUint64, Count: math.MaxUint64}}, command.MaxKept)
	digest := make([]byte, 16)
	for _, size := range []int{0, 1, 255, 256, 65536} { // where msgpack's own lengths grow
		b := make([]byte, size)
		for name, one := range map[string]command.Write{
			"puts":      {Ops: []command.Op{{Key: b, Value: b}}},
			"deletions": {Ops: []command.Op{{Key: b, Kind: command.OpDelete}}},
			"versions":  {Conditions: []command.Condition{{Kind: command.CondVersion, Key: b, Version: math.MaxUint64}}},
			"values":    {Conditions: []command.Condition{{Kind: command.CondValue, Key: b, Value: b}}},
			"ranges":    {Conditions: []command.Condition{{Kind: command.CondRange, Key: b, Limit: b, HasLimit: true, Digest: digest}}},
		} {
			w := command.Write{Ops: slices.Repeat(one.Ops, n), Conditions: slices.Repeat(one.Conditions, n)}
			cmd := command.EncodeWrites(math.MaxUint64, math.MaxUint64, math.MaxUint64, kept, [][]byte{command.EncodeWrite(w)})
			sent := len(withDeadline(t.Context(), cmd))
			if (limits{key: size, value: size, batch: sent - head - 1, reads: math.MaxInt}).check(w) == nil {
				t.Errorf("%d %s of %d bytes take %d bytes, and count for less", n, name, size, sent)
			}
		}
	}
	if room := maxClientFrame - maxBatchSizeLimit; room < head {
		t.Errorf("a frame has room for %d bytes more than the largest batch", room)
	}
}

// A batch whose keys and values fit, and whose encoding does not, is too large. It
// is not sent only to break the connection, which would leave its fate unknown.
func TestABatchOfTinyPairsIsTooLarge(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		const addr = "/ip4/10.0.0.1/tcp/9490"
		network := memnet.New()
		startedNode(t, ctx, addr, Options{
			InMemory: true, Transport: network.Host(addr), HeartbeatTimeout: 50 * time.Millisecond, MaxBatchSize: maxBatchSizeLimit,
		})
		db, err := Dial(ctx, []string{addr}, DialOptions{Transport: network.Host("client"), MaxBatchSize: maxBatchSizeLimit})
		noError(t, err)
		defer db.Close()
		pair := bytes.Repeat([]byte("p"), 8)
		w := command.Write{Ops: slices.Repeat([]command.Op{{Key: pair, Value: pair}}, maxBatchSizeLimit/16)}
		if err := db.write("write", w); !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("%d pairs: %v", len(w.Ops), err)
		}
	})
}
