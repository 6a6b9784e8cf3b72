package command_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/skiffdb/skiff/internal/command"
)

var clusterID = []byte("0123456789abcdef")

// sampleWrite has one of everything that a write can have.
var sampleWrite = command.Write{
	Conditions: []command.Condition{
		{Kind: command.CondVersion, Key: []byte("k"), Version: 300},
		{Kind: command.CondRange, Key: []byte("a"), Limit: []byte("b"), HasLimit: true, Digest: []byte("d")},
		{Kind: command.CondRange, Key: []byte{}, Digest: []byte{}},
	},
	Ops: []command.Op{
		{Key: []byte("p"), Value: []byte("v")},
		{Key: []byte("e"), Value: []byte{}},
		{Key: []byte("x"), Delete: true},
	},
}

// sampleSession has two results, one with a rejected write, and a low mark.
func sampleSession() *command.Session {
	s := &command.Session{LastIndex: 9}
	s.Forget(2)
	s.Record(2, command.Result{Index: 7})
	s.Record(3, command.Result{Index: 9, Rejected: []uint32{0, 300}})
	return s
}

// The bytes are in the logs and states of clusters. If this test fails, a new
// Version is needed, not new hex.
func TestTheFormatDoesNotChange(t *testing.T) {
	write := command.EncodeWrite(sampleWrite)
	for _, test := range []struct {
		name    string
		encoded []byte
		want    string
	}{
		{"init", command.EncodeInit(clusterID), "01 01 c410 30313233343536373839616263646566"},
		{"register", command.EncodeRegister(), "01 02"},
		{"admit", command.EncodeAdmit("a", clusterID), "01 04 c40161 c410 30313233343536373839616263646566"},
		{"write", write, "93" +
			"01 c4016b cd012c" +
			"02 c40161 c40162 c40164" +
			"02 c400 c0 c400" +
			"93" + "c40170 c40176" + "c40165 c400" + "c40178 c0"},
		{"command without writes", command.EncodeWrites(1, 2, 3, nil), "01 03 01 02 03 90"},
		{"command of two writes", command.EncodeWrites(70000, 256, 1<<40, [][]byte{write, {0x90, 0x90}}),
			"01 03 ce00011170 cd0100 cf0000010000000000 92" + hex.EncodeToString(write) + "9090"},
		{"result", command.EncodeResult(command.Result{Status: command.StatusForgotten, Index: 5, Rejected: []uint32{1, 70000}}),
			"02 05 92 01 ce00011170"},
		{"session", sampleSession().Encode(), "09 02 92" + "02 000790" + "03 0009 92 00 cd012c"},
	} {
		if want := strings.ReplaceAll(test.want, " ", ""); hex.EncodeToString(test.encoded) != want {
			t.Errorf("%s is encoded as\n%x, want\n%s", test.name, test.encoded, want)
		}
	}
}

func bytesGen() *rapid.Generator[[]byte] {
	return rapid.OneOf(rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 40), rapid.Just(bytes.Repeat([]byte{7}, 300)))
}

func opGen() *rapid.Generator[command.Op] {
	return rapid.Custom(func(t *rapid.T) command.Op {
		op := command.Op{Key: bytesGen().Draw(t, "key"), Delete: rapid.Bool().Draw(t, "delete")}
		if !op.Delete {
			op.Value = bytesGen().Draw(t, "value")
		}
		return op
	})
}

func conditionGen() *rapid.Generator[command.Condition] {
	return rapid.Custom(func(t *rapid.T) command.Condition {
		c := command.Condition{Key: bytesGen().Draw(t, "key")}
		if rapid.Bool().Draw(t, "version") {
			c.Kind = command.CondVersion
			c.Version = rapid.Uint64().Draw(t, "version")
			return c
		}
		c.Kind = command.CondRange
		if c.HasLimit = rapid.Bool().Draw(t, "has limit"); c.HasLimit {
			c.Limit = bytesGen().Draw(t, "limit")
		}
		c.Digest = bytesGen().Draw(t, "digest")
		return c
	})
}

// writeGen draws writes as they are after decoding: absent lists are nil, all
// other slices are not.
func writeGen() *rapid.Generator[command.Write] {
	return rapid.Custom(func(t *rapid.T) command.Write {
		var w command.Write
		for range rapid.IntRange(0, 20).Draw(t, "conditions") {
			w.Conditions = append(w.Conditions, conditionGen().Draw(t, "condition"))
		}
		for range rapid.IntRange(0, 20).Draw(t, "ops") {
			w.Ops = append(w.Ops, opGen().Draw(t, "op"))
		}
		return w
	})
}

func resultGen() *rapid.Generator[command.Result] {
	return rapid.Custom(func(t *rapid.T) command.Result {
		r := command.Result{
			Status: command.Status(rapid.Uint8().Draw(t, "status")),
			Index:  rapid.Uint64().Draw(t, "index"),
		}
		for range rapid.IntRange(0, 20).Draw(t, "rejected") {
			r.Rejected = append(r.Rejected, rapid.Uint32().Draw(t, "position"))
		}
		return r
	})
}

func TestWhatIsEncodedDecodesEqual(t *testing.T) {
	t.Run("commands", rapid.MakeCheck(func(t *rapid.T) {
		want := &command.Command{
			Kind: command.KindWrite, Writes: []command.Write{},
			Session: rapid.Uint64().Draw(t, "session"), Seq: rapid.Uint64().Draw(t, "seq"), Low: rapid.Uint64().Draw(t, "low"),
		}
		var encoded [][]byte
		for range rapid.IntRange(0, 5).Draw(t, "writes") {
			w := writeGen().Draw(t, "write")
			want.Writes = append(want.Writes, w)
			encoded = append(encoded, command.EncodeWrite(w))
		}
		got, err := command.Decode(command.EncodeWrites(want.Session, want.Seq, want.Low, encoded))
		mustEqual(t, got, want, err)
	}))
	t.Run("writes", rapid.MakeCheck(func(t *rapid.T) {
		want := writeGen().Draw(t, "write")
		got, err := command.DecodeWrite(command.EncodeWrite(want))
		mustEqual(t, got, want, err)
	}))
	t.Run("results", rapid.MakeCheck(func(t *rapid.T) {
		want := resultGen().Draw(t, "result")
		got, err := command.DecodeResult(command.EncodeResult(want))
		mustEqual(t, got, want, err)
	}))
	t.Run("sessions", rapid.MakeCheck(func(t *rapid.T) {
		want := &command.Session{LastIndex: rapid.Uint64().Draw(t, "last index")}
		for range rapid.IntRange(0, 30).Draw(t, "results") {
			want.Record(rapid.Uint64Range(0, 50).Draw(t, "seq"), resultGen().Draw(t, "result"))
		}
		want.Forget(rapid.Uint64Range(0, 20).Draw(t, "low"))
		got, err := command.DecodeSession(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		// Compared by what they answer: the one decoded may have nil for empty.
		if got.LastIndex != want.LastIndex || !bytes.Equal(got.Encode(), want.Encode()) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}))
	t.Run("init, register and admit", func(t *testing.T) {
		got, err := command.Decode(command.EncodeInit(clusterID))
		mustEqual(t, got, &command.Command{Kind: command.KindInit, ClusterID: clusterID}, err)
		got, err = command.Decode(command.EncodeRegister())
		mustEqual(t, got, &command.Command{Kind: command.KindRegister}, err)
		if command.IsAdmit(nil) || command.IsAdmit(command.EncodeRegister()) || !command.IsAdmit(command.EncodeAdmit("", clusterID)) {
			t.Error("IsAdmit takes one for the other")
		}
		got, err = command.Decode(command.EncodeAdmit("/ip4/10.0.0.1/tcp/9490", clusterID))
		mustEqual(t, got, &command.Command{Kind: command.KindAdmit, Address: "/ip4/10.0.0.1/tcp/9490", Incarnation: clusterID}, err)
	})
}

type tb interface {
	Helper()
	Fatalf(string, ...any)
}

func mustEqual(t tb, got, want any, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestAnEmptyValueIsNoDeletion(t *testing.T) {
	for _, test := range []struct {
		name   string
		op     command.Op
		delete bool
	}{
		{"nil value", command.Op{Key: []byte("k")}, false},
		{"empty value", command.Op{Key: []byte("k"), Value: []byte{}}, false},
		{"deletion", command.Op{Key: []byte("k"), Delete: true}, true},
		{"deletion with a value, which does not count", command.Op{Key: []byte("k"), Delete: true, Value: []byte("v")}, true},
		{"empty key", command.Op{}, false},
	} {
		w, err := command.DecodeWrite(command.EncodeWrite(command.Write{Ops: []command.Op{test.op}}))
		if err != nil || len(w.Ops) != 1 {
			t.Fatalf("%s: %+v, %v", test.name, w, err)
		}
		got := w.Ops[0]
		if got.Delete != test.delete || got.Key == nil || (got.Value == nil) != test.delete || len(got.Value) != 0 {
			t.Errorf("%s: decoded as %+v", test.name, got)
		}
	}
}

func TestAnEmptyLimitIsNoOpenEnd(t *testing.T) {
	for _, test := range []struct {
		name      string
		condition command.Condition
		hasLimit  bool
	}{
		{"no limit", command.Condition{}, false},
		{"no limit, with bytes that do not count", command.Condition{Limit: []byte("b")}, false},
		{"empty limit", command.Condition{HasLimit: true, Limit: []byte{}}, true},
		{"nil limit", command.Condition{HasLimit: true}, true},
	} {
		test.condition.Kind = command.CondRange
		w, err := command.DecodeWrite(command.EncodeWrite(command.Write{Conditions: []command.Condition{test.condition}}))
		if err != nil || len(w.Conditions) != 1 {
			t.Fatalf("%s: %+v, %v", test.name, w, err)
		}
		if got := w.Conditions[0]; got.HasLimit != test.hasLimit || (got.Limit != nil) != test.hasLimit || len(got.Limit) != 0 {
			t.Errorf("%s: decoded as %+v", test.name, got)
		}
	}
}

// A node that misreads an entry differs from the others from then on, so what is
// not exactly a command of this version is an error.
func TestDecodersRefuse(t *testing.T) {
	decode := func(b []byte) error { _, err := command.Decode(b); return err }
	decodeWrite := func(b []byte) error { _, err := command.DecodeWrite(b); return err }
	decodeResult := func(b []byte) error { _, err := command.DecodeResult(b); return err }
	decodeSession := func(b []byte) error { _, err := command.DecodeSession(b); return err }
	for _, test := range []struct {
		name   string
		decode func([]byte) error
		hex    string
	}{
		{"an empty entry", decode, ""},
		{"version 0", decode, "00 02"},
		{"a later version", decode, "02 02"},
		{"an entry without a kind", decode, "01"},
		{"kind 0", decode, "01 00"},
		{"kind 4", decode, "01 04"},
		{"a kind that is 2 in its low byte only", decode, "01 cd0102"},
		{"a kind that is a float", decode, "01 cb4000000000000000"},
		{"a kind that is a string", decode, "01 a132"},
		{"bytes after a register", decode, "01 02 00"},
		{"bytes after an init", decode, "01 01 c410" + strings.Repeat("00", 17)},
		{"bytes after writes", decode, "01 03 01 01 01 90 90"},
		{"a cluster id that is short", decode, "01 01 c40f" + strings.Repeat("00", 15)},
		{"a cluster id that is long", decode, "01 01 c411" + strings.Repeat("00", 17)},
		{"a cluster id that is nil", decode, "01 01 c0"},
		{"a session cut short", decode, "01 03 cf0000"},
		{"a command without writes array", decode, "01 03 01 01 01"},
		{"a writes array of nil", decode, "01 03 01 01 01 c0"},
		{"more writes announced than there are bytes", decode, "01 03 01 01 01 92 9090"},
		{"writes beyond all memory", decode, "01 03 01 01 01 ddffffffff 9090"},
		{"a write cut short", decode, "01 03 01 01 01 91 90"},

		{"an empty write", decodeWrite, ""},
		{"bytes after a write", decodeWrite, "9090 00"},
		{"condition kind 0", decodeWrite, "91 00 c400 00 90"},
		{"condition kind 3", decodeWrite, "91 03 c400 00 90"},
		{"a condition kind that is 1 in its low byte only", decodeWrite, "91 cd0101 c400 00 90"},
		{"conditions beyond the input", decodeWrite, "dd7fffffff 90"},
		{"ops beyond the input", decodeWrite, "90 ddffffffff c400c0"},
		{"a key beyond the input", decodeWrite, "90 91 c6ffffffff 6b c0"},
		{"a value one byte beyond the input", decodeWrite, "90 91 c400 c402 00"},
		{"a nil key", decodeWrite, "90 91 c0 c400"},
		{"an op without a value", decodeWrite, "90 91 c400"},
		{"a range condition without a digest", decodeWrite, "91 02 c400 c0 90"},

		{"an empty result", decodeResult, ""},
		{"bytes after a result", decodeResult, "00 01 90 00"},
		{"a status that is 0 in its low byte only", decodeResult, "cd0100 01 90"},
		{"a position beyond 32 bits", decodeResult, "00 01 91 cf0000000100000000"},
		{"rejected writes beyond the input", decodeResult, "00 01 ddffffffff 00"},

		{"an empty session", decodeSession, ""},
		{"bytes after a session", decodeSession, "01 01 90 00"},
		{"results beyond the input", decodeSession, "01 01 ddffffffff 00"},
		{"a session result cut short", decodeSession, "01 01 91 01 00 01"},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(test.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if err := test.decode(b); !errors.Is(err, command.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", test.name, err)
		}
	}
}

// Each proper prefix of a valid encoding is refused.
func TestDecodersRefuseTruncation(t *testing.T) {
	write := command.EncodeWrite(sampleWrite)
	for _, test := range []struct {
		name   string
		valid  []byte
		decode func([]byte) error
	}{
		{"init", command.EncodeInit(clusterID), func(b []byte) error { _, err := command.Decode(b); return err }},
		{"writes", command.EncodeWrites(1000, 2, 3, [][]byte{write, write}), func(b []byte) error { _, err := command.Decode(b); return err }},
		{"write", write, func(b []byte) error { _, err := command.DecodeWrite(b); return err }},
		{"result", command.EncodeResult(command.Result{Index: 1000, Rejected: []uint32{1, 1000}}), func(b []byte) error { _, err := command.DecodeResult(b); return err }},
		{"session", sampleSession().Encode(), func(b []byte) error { _, err := command.DecodeSession(b); return err }},
	} {
		if err := test.decode(test.valid); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		for n := range test.valid {
			if err := test.decode(test.valid[:n]); !errors.Is(err, command.ErrMalformed) {
				t.Errorf("%s cut to %d bytes: got %v, want ErrMalformed", test.name, n, err)
			}
		}
	}
}

func TestWhatIsDecodedDoesNotAliasTheInput(t *testing.T) {
	b := command.EncodeWrites(1, 2, 3, [][]byte{command.EncodeWrite(sampleWrite)})
	c, err := command.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(c.Writes, []command.Write{sampleWrite}) {
		t.Errorf("after the input was overwritten: %+v", c.Writes)
	}
}

// Announced lengths cost nothing: what is allocated depends on the bytes that
// are there.
func TestDecodingNeedsMemoryInProportionToTheInput(t *testing.T) {
	head, _ := hex.DecodeString("0103010101")
	announce := func(n uint32) []byte { return []byte{0xdd, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	const many = 1 << 16
	for _, test := range []struct {
		name  string
		input []byte
	}{
		{"an array of 4 billion", append(append(head[:5:5], announce(math.MaxUint32)...), 0x90, 0x90)},
		{"bytes of length 4 billion", append(append(head[:5:5], 0x91, 0x90, 0x91), 0xc6, 0xff, 0xff, 0xff, 0xff)},
		{"bytes of length 100 million", append(append(head[:5:5], 0x91, 0x90, 0x91), 0xc6, 0x05, 0xf5, 0xe1, 0x00)},
		{"an array of all that is left, and its first element is wrong",
			append(append(head[:5:5], announce(many)...), bytes.Repeat([]byte{0xc1}, many)...)},
		{"arrays in arrays", append(append(head[:5:5], announce(many)...), bytes.Repeat(announce(many), many/5+1)...)},
		{"empty writes", append(append(head[:5:5], announce(many)...), bytes.Repeat([]byte{0x90}, 2*many)...)},
		{"empty ops", append(append(append(head[:5:5], 0x91, 0x90), announce(many)...), bytes.Repeat([]byte{0xc4, 0, 0xc0}, many)...)},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := command.Decode(test.input)
		runtime.ReadMemStats(&after)
		got, limit := after.TotalAlloc-before.TotalAlloc, uint64(64<<10+150*len(test.input))
		if got > limit {
			t.Errorf("%s: %d bytes allocated for an input of %d (err %v), want at most %d", test.name, got, len(test.input), err, limit)
		}
	}
}

// sessionModel is what a session promises, in the plainest form.
type sessionModel struct {
	low     uint64
	results map[uint64]command.Result
}

func (m *sessionModel) forget(low uint64) {
	m.low = max(m.low, low)
	for seq := range m.results {
		if seq < m.low {
			delete(m.results, seq)
		}
	}
}

func (m *sessionModel) record(seq uint64, r command.Result) {
	if _, known := m.results[seq]; known {
		return
	}
	m.results[seq] = r
	for len(m.results) > command.MaxResults {
		oldest := uint64(math.MaxUint64)
		for seq := range m.results {
			oldest = min(oldest, seq)
		}
		m.forget(oldest + 1)
	}
}

func (m *sessionModel) lookup(seq uint64) (command.Result, bool) {
	if seq < m.low {
		return command.Result{Status: command.StatusForgotten}, true
	}
	r, seen := m.results[seq]
	return r, seen
}

// A session behaves like a map with a low mark, also when it is stored and read
// back at any time.
func TestSessionModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &command.Session{}
		m := &sessionModel{results: map[uint64]command.Result{}}
		seqs := rapid.Uint64Range(0, rapid.SampledFrom([]uint64{10, 2 * command.MaxResults}).Draw(t, "numbers"))
		index := uint64(0)
		record := func(seq uint64) {
			if _, seen := m.lookup(seq); seen {
				return // whoever uses a session looks first
			}
			index++
			r := command.Result{Index: index}
			s.Record(seq, r)
			m.record(seq, r)
		}
		t.Repeat(map[string]func(*rapid.T){
			"record": func(t *rapid.T) { record(seqs.Draw(t, "seq")) },
			"record many": func(t *rapid.T) {
				for seq := range uint64(command.MaxResults) + 10 {
					record(seq + m.low)
				}
			},
			"record again": func(t *rapid.T) {
				seq := seqs.Draw(t, "seq")
				if r, seen := m.lookup(seq); seen && r.Status == command.StatusOK {
					s.Record(seq, command.Result{Index: math.MaxUint64}) // the first result stays
				}
			},
			"forget": func(t *rapid.T) {
				low := seqs.Draw(t, "low")
				s.Forget(low)
				m.forget(low)
			},
			"store": func(t *rapid.T) {
				var err error
				if s, err = command.DecodeSession(s.Encode()); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				for range 10 {
					seq := rapid.Uint64Range(0, 3*command.MaxResults).Draw(t, "looked up")
					got, gotSeen := s.Lookup(seq)
					want, wantSeen := m.lookup(seq)
					if gotSeen != wantSeen || !reflect.DeepEqual(got, want) {
						t.Fatalf("Lookup(%d) = %+v, %v; want %+v, %v", seq, got, gotSeen, want, wantSeen)
					}
				}
			},
		})
	})
}

func TestASessionRemembersMaxResults(t *testing.T) {
	s := &command.Session{}
	for seq := range uint64(command.MaxResults) + 1 {
		s.Record(seq, command.Result{Index: seq + 1})
	}
	if r, seen := s.Lookup(0); !seen || r.Status != command.StatusForgotten {
		t.Errorf("the oldest: %+v, %v", r, seen)
	}
	if r, seen := s.Lookup(1); !seen || r.Index != 2 {
		t.Errorf("the second: %+v, %v", r, seen)
	}
}

// addSeeds adds valid encodings and some damage to them.
func addSeeds(f *testing.F, valid ...[]byte) {
	for _, b := range valid {
		f.Add(b)
		for i := range b {
			f.Add(b[:i])
			damaged := bytes.Clone(b)
			damaged[i] ^= 0xff
			f.Add(damaged)
		}
	}
	f.Add([]byte{1, 3, 1, 1, 1, 0xdd, 0xff, 0xff, 0xff, 0xff})
}

// encodeCommand is the inverse of Decode.
func encodeCommand(c *command.Command) []byte {
	switch c.Kind {
	case command.KindInit:
		return command.EncodeInit(c.ClusterID)
	case command.KindRegister:
		return command.EncodeRegister()
	case command.KindAdmit:
		return command.EncodeAdmit(c.Address, c.Incarnation)
	case command.KindWrite:
		encoded := make([][]byte, len(c.Writes))
		for i, w := range c.Writes {
			encoded[i] = command.EncodeWrite(w)
		}
		return command.EncodeWrites(c.Session, c.Seq, c.Low, encoded)
	}
	panic(fmt.Sprintf("kind %d was decoded", c.Kind))
}

func FuzzDecode(f *testing.F) {
	write := command.EncodeWrite(sampleWrite)
	addSeeds(f, command.EncodeInit(clusterID), command.EncodeRegister(), command.EncodeAdmit("/ip4/10.0.0.1/tcp/9490", clusterID), command.EncodeWrites(1, 2, 3, [][]byte{write, write}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := command.Decode(b)
		if err != nil {
			mustBeMalformed(t, err)
			return
		}
		again, err := command.Decode(encodeCommand(c))
		mustEqual(t, again, c, err)
	})
}

func FuzzDecodeWrite(f *testing.F) {
	addSeeds(f, command.EncodeWrite(sampleWrite))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := command.DecodeWrite(b)
		if err != nil {
			mustBeMalformed(t, err)
			return
		}
		again, err := command.DecodeWrite(command.EncodeWrite(w))
		mustEqual(t, again, w, err)
	})
}

func FuzzDecodeResult(f *testing.F) {
	addSeeds(f, command.EncodeResult(command.Result{Index: 70000, Rejected: []uint32{1, 300}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := command.DecodeResult(b)
		if err != nil {
			mustBeMalformed(t, err)
			return
		}
		again, err := command.DecodeResult(command.EncodeResult(r))
		mustEqual(t, again, r, err)
	})
}

func FuzzDecodeSession(f *testing.F) {
	addSeeds(f, sampleSession().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := command.DecodeSession(b)
		if err != nil {
			mustBeMalformed(t, err)
			return
		}
		again, err := command.DecodeSession(s.Encode())
		mustEqual(t, again, s, err)
	})
}

func mustBeMalformed(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, command.ErrMalformed) {
		t.Fatalf("got %v, want ErrMalformed", err)
	}
}
