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
		{Kind: command.CondRange, Key: []byte("a"), Limit: []byte("b"), HasLimit: true, Count: 7, Digest: []byte("d")},
		{Kind: command.CondRange, Key: []byte{}, Digest: []byte{}},
		{Kind: command.CondPresent, Key: []byte("k")},
		{Kind: command.CondValue, Key: []byte("k"), Value: []byte{}},
	},
	Ops: []command.Op{
		{Key: []byte("p"), Value: []byte("v")},
		{Key: []byte("e"), Value: []byte{}},
		{Key: []byte("x"), Kind: command.OpDelete},
		{Key: []byte("l/"), Kind: command.OpAppend, Value: []byte("v")},
	},
}

func span(first, count uint64) command.Span { return command.Span{First: first, Count: count} }

// sampleOutcomes are of each kind.
var sampleOutcomes = []command.Outcome{
	{Span: span(2, 1), Index: 7},
	{Span: span(3, 300), Index: 9, Rejected: []command.Rejection{{Write: 3}, {Write: 302, Condition: 5}}},
	{Span: span(400, 1), Status: command.StatusCancelled, Index: 8},
}

// sampleSession has a low mark, and keeps something below it.
func sampleSession() *command.Session {
	s := &command.Session{LastIndex: 9}
	s.Record(sampleOutcomes[0])
	s.Advance(300, []command.Span{span(2, 1), span(4, 2)})
	s.Record(sampleOutcomes[2])
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
		{"init", command.EncodeInit(clusterID), "02 01 c410 30313233343536373839616263646566"},
		{"register", command.EncodeRegister(), "02 02"},
		{"admit", command.EncodeAdmit("a", clusterID), "02 04 c40161 c410 30313233343536373839616263646566"},
		{"write", write, "95" +
			"01 c4016b cd012c" +
			"02 c40161 c40162 07 c40164" +
			"02 c400 c0 00 c400" +
			"03 c4016b" +
			"04 c4016b c400" +
			"94" + "c40170 c40176" + "c40165 c400" + "c40178 c0" + "c4026c2f 02 c40176"},
		{"command without writes", command.EncodeWrites(1, 2, 3, nil, nil), "02 03 01 02 03 90 90"},
		{"command of two writes", command.EncodeWrites(70000, 256, 1<<40, []command.Span{span(5, 2), span(300, 1)}, [][]byte{write, {0x90, 0x90}}),
			"02 03 ce00011170 cd0100 cf0000010000000000 92 0502 cd012501 92" + hex.EncodeToString(write) + "9090"},
		{"resolve", command.EncodeResolve(1, 300), "02 05 01 cd012c"},
		{"result", command.EncodeResult(command.Result{Index: 10, Outcomes: sampleOutcomes}),
			"00 0a 93" + "0201 00 03 90" + "00cd012c 00 01 92 0000 cd012b05" + "6101 03 02 90"},
		{"result without a session", command.EncodeResult(command.Result{Status: command.StatusNoSession, Index: 10}), "01 0a 90"},
		{"session", sampleSession().Encode(), "09 cd012c 92 0201 0102" + "92" + "0201 00 02 90" + "cd018d01 03 01 90"},
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
		op := command.Op{Key: bytesGen().Draw(t, "key"), Kind: command.OpKind(rapid.IntRange(0, 2).Draw(t, "kind"))}
		if op.Kind != command.OpDelete {
			op.Value = bytesGen().Draw(t, "value")
		}
		return op
	})
}

func conditionGen() *rapid.Generator[command.Condition] {
	return rapid.Custom(func(t *rapid.T) command.Condition {
		c := command.Condition{Key: bytesGen().Draw(t, "key"), Kind: command.ConditionKind(rapid.IntRange(1, 4).Draw(t, "kind"))}
		switch c.Kind {
		case command.CondVersion:
			c.Version = rapid.Uint64().Draw(t, "version")
		case command.CondValue:
			c.Value = bytesGen().Draw(t, "value")
		case command.CondRange:
			if c.HasLimit = rapid.Bool().Draw(t, "has limit"); c.HasLimit {
				c.Limit = bytesGen().Draw(t, "limit")
			}
			c.Count, c.Digest = rapid.Uint64().Draw(t, "count"), bytesGen().Draw(t, "digest")
		}
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

// spanGen draws spans that are ascending and do not overlap.
func spansGen(most int) *rapid.Generator[[]command.Span] {
	return rapid.Custom(func(t *rapid.T) (spans []command.Span) {
		end := rapid.SampledFrom([]uint64{0, 1 << 40}).Draw(t, "from")
		for range rapid.IntRange(0, most).Draw(t, "spans") {
			s := span(end+rapid.Uint64Range(0, 300).Draw(t, "gap"), rapid.Uint64Range(1, 300).Draw(t, "count"))
			spans = append(spans, s)
			end = s.End()
		}
		return spans
	})
}

func resultGen() *rapid.Generator[command.Result] {
	return rapid.Custom(func(t *rapid.T) command.Result {
		r := command.Result{
			Status: command.Status(rapid.Uint8().Draw(t, "status")),
			Index:  rapid.Uint64().Draw(t, "index"),
		}
		for _, s := range spansGen(20).Draw(t, "spans") {
			o := command.Outcome{Span: s, Status: command.Status(rapid.Uint8().Draw(t, "status")), Index: rapid.Uint64Range(0, r.Index).Draw(t, "index")}
			for seq := s.First; seq < s.End() && rapid.Bool().Draw(t, "rejected"); seq++ {
				o.Rejected = append(o.Rejected, command.Rejection{Write: seq, Condition: rapid.Uint32().Draw(t, "condition")})
			}
			r.Outcomes = append(r.Outcomes, o)
		}
		return r
	})
}

func TestWhatIsEncodedDecodesEqual(t *testing.T) {
	t.Run("commands", rapid.MakeCheck(func(t *rapid.T) {
		want := &command.Command{
			Kind: command.KindWrite, Writes: []command.Write{},
			Session: rapid.Uint64().Draw(t, "session"), Seq: rapid.Uint64Range(0, math.MaxUint64-5).Draw(t, "seq"),
			Kept: spansGen(command.MaxKept).Draw(t, "kept"),
		}
		if n := len(want.Kept); n > 0 {
			want.Low = want.Kept[n-1].End()
		}
		want.Low += rapid.Uint64Range(0, 300).Draw(t, "low")
		var encoded [][]byte
		for range rapid.IntRange(0, 5).Draw(t, "writes") {
			w := writeGen().Draw(t, "write")
			want.Writes = append(want.Writes, w)
			encoded = append(encoded, command.EncodeWrite(w))
		}
		got, err := command.Decode(command.EncodeWrites(want.Session, want.Seq, want.Low, want.Kept, encoded))
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
	t.Run("the other commands", func(t *testing.T) {
		got, err := command.Decode(command.EncodeInit(clusterID))
		mustEqual(t, got, &command.Command{Kind: command.KindInit, ClusterID: clusterID}, err)
		got, err = command.Decode(command.EncodeRegister())
		mustEqual(t, got, &command.Command{Kind: command.KindRegister}, err)
		got, err = command.Decode(command.EncodeResolve(math.MaxUint64, math.MaxUint64-1))
		mustEqual(t, got, &command.Command{Kind: command.KindResolve, Session: math.MaxUint64, Seq: math.MaxUint64 - 1}, err)
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
		{"deletion", command.Op{Key: []byte("k"), Kind: command.OpDelete}, true},
		{"deletion with a value, which does not count", command.Op{Key: []byte("k"), Kind: command.OpDelete, Value: []byte("v")}, true},
		{"empty key", command.Op{}, false},
		{"nil value appended", command.Op{Key: []byte("k"), Kind: command.OpAppend}, false},
	} {
		w, err := command.DecodeWrite(command.EncodeWrite(command.Write{Ops: []command.Op{test.op}}))
		if err != nil || len(w.Ops) != 1 {
			t.Fatalf("%s: %+v, %v", test.name, w, err)
		}
		got := w.Ops[0]
		if (got.Kind == command.OpDelete) != test.delete || got.Key == nil || (got.Value == nil) != test.delete || len(got.Value) != 0 {
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
		{"the version before", decode, "01 02"},
		{"a later version", decode, "03 02"},
		{"an entry without a kind", decode, "02"},
		{"kind 0", decode, "02 00"},
		{"kind 6", decode, "02 06"},
		{"a kind that is 2 in its low byte only", decode, "02 cd0102"},
		{"a kind that is a float", decode, "02 cb4000000000000000"},
		{"a kind that is a string", decode, "02 a132"},
		{"bytes after a register", decode, "02 02 00"},
		{"bytes after an init", decode, "02 01 c410" + strings.Repeat("00", 17)},
		{"bytes after writes", decode, "02 03 01 01 01 90 90 90"},
		{"bytes after a resolve", decode, "02 05 01 01 01"},
		{"a resolve of a number that no write can have", decode, "02 05 01 cfffffffffffffffff"},
		{"a cluster id that is short", decode, "02 01 c40f" + strings.Repeat("00", 15)},
		{"a cluster id that is long", decode, "02 01 c411" + strings.Repeat("00", 17)},
		{"a cluster id that is nil", decode, "02 01 c0"},
		{"a session cut short", decode, "02 03 cf0000"},
		{"a command without writes array", decode, "02 03 01 01 01 90"},
		{"a writes array of nil", decode, "02 03 01 01 01 90 c0"},
		{"more writes announced than there are bytes", decode, "02 03 01 01 01 90 92 9090"},
		{"writes beyond all memory", decode, "02 03 01 01 01 90 ddffffffff 9090"},
		{"a write cut short", decode, "02 03 01 01 01 90 91 90"},
		{"more writes than there are numbers left", decode, "02 03 01 cffffffffffffffffe 01 90 92 9090 9090"},
		{"an empty span that is kept", decode, "02 03 01 0a 09 91 0100 90"},
		{"a span that reaches beyond the low mark", decode, "02 03 01 0a 09 91 0505 90"},
		{"a second span that does", decode, "02 03 01 0a 09 92 0501 0401 90"},
		{"a span that reaches beyond all numbers", decode, "02 03 01 0a 09 91 05 cfffffffffffffffff 90"},
		{"a second span that begins beyond all numbers", decode, "02 03 01 0a 09 92 0501 cfffffffffffffffff 01 90"},
		{"too many spans", decode, "02 03 01 cd1000 cd1000 dc0041" + strings.Repeat("0101", 65) + "90"},

		{"an empty write", decodeWrite, ""},
		{"bytes after a write", decodeWrite, "9090 00"},
		{"condition kind 0", decodeWrite, "91 00 c400 00 90"},
		{"condition kind 5", decodeWrite, "91 05 c400 00 90"},
		{"a condition kind that is 1 in its low byte only", decodeWrite, "91 cd0101 c400 00 90"},
		{"conditions beyond the input", decodeWrite, "dd7fffffff 90"},
		{"ops beyond the input", decodeWrite, "90 ddffffffff c400c0"},
		{"a key beyond the input", decodeWrite, "90 91 c6ffffffff 6b c0"},
		{"a value one byte beyond the input", decodeWrite, "90 91 c400 c402 00"},
		{"a nil key", decodeWrite, "90 91 c0 c400"},
		{"an op without a value", decodeWrite, "90 91 c400"},
		{"an op of kind 1, which is told by its value", decodeWrite, "90 91 c400 01 c400"},
		{"an op of kind 3", decodeWrite, "90 91 c400 03 c400"},
		{"an appended nil", decodeWrite, "90 91 c400 02 c0"},
		{"a range condition without a count", decodeWrite, "91 02 c400 c0 c400 90"},
		{"a range condition without a digest", decodeWrite, "91 02 c400 c0 00 90"},
		{"a value condition without a value", decodeWrite, "91 04 c400 90"},

		{"an empty result", decodeResult, ""},
		{"bytes after a result", decodeResult, "00 01 90 00"},
		{"a status that is 0 in its low byte only", decodeResult, "cd0100 01 90"},
		{"outcomes beyond the input", decodeResult, "00 01 ddffffffff 00"},
		{"an empty outcome", decodeResult, "00 01 91 0100 00 00 90"},
		{"an outcome beyond all numbers", decodeResult, "00 01 91 02 cfffffffffffffffff 00 00 90"},
		{"an outcome later than the result", decodeResult, "00 01 91 0101 00 02 90"},
		{"a rejected write that is none of the outcome's", decodeResult, "00 01 91 0102 00 00 91 0200"},
		{"a write rejected twice", decodeResult, "00 01 91 0102 00 00 92 0100 0100"},
		{"a condition beyond 32 bits", decodeResult, "00 01 91 0102 00 00 91 00 cf0000000100000000"},

		{"an empty session", decodeSession, ""},
		{"bytes after a session", decodeSession, "01 01 90 90 00"},
		{"outcomes beyond the input", decodeSession, "01 01 90 ddffffffff 00"},
		{"an outcome cut short", decodeSession, "01 01 90 91 01 01 00"},
		{"a span that reaches beyond the low mark", decodeSession, "01 09 91 0505 90"},
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
		{"writes", command.EncodeWrites(1000, 2, 30, []command.Span{span(3, 4)}, [][]byte{write, write}), func(b []byte) error { _, err := command.Decode(b); return err }},
		{"write", write, func(b []byte) error { _, err := command.DecodeWrite(b); return err }},
		{"resolve", command.EncodeResolve(1000, 1000), func(b []byte) error { _, err := command.Decode(b); return err }},
		{"result", command.EncodeResult(command.Result{Index: 1000, Outcomes: sampleOutcomes}), func(b []byte) error { _, err := command.DecodeResult(b); return err }},
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

// What is decoded is part of the input, and nothing that is done with it changes that.
func TestToAppendToWhatIsDecodedCopiesIt(t *testing.T) {
	b := command.EncodeWrites(1, 2, 3, nil, [][]byte{command.EncodeWrite(sampleWrite)})
	before := bytes.Clone(b)
	c, err := command.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range c.Writes[0].Ops {
		_, _ = append(op.Key, "longer"...), append(op.Value, "longer"...)
	}
	if !bytes.Equal(b, before) {
		t.Errorf("the input is %x, and was %x", b, before)
	}
}

// Announced lengths cost nothing: what is allocated depends on the bytes that
// are there.
func TestDecodingNeedsMemoryInProportionToTheInput(t *testing.T) {
	head, _ := hex.DecodeString("020301010190")
	announce := func(n uint32) []byte { return []byte{0xdd, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	const many = 1 << 16
	for _, test := range []struct {
		name  string
		input []byte
	}{
		{"an array of 4 billion", append(append(head[:6:6], announce(math.MaxUint32)...), 0x90, 0x90)},
		{"bytes of length 4 billion", append(append(head[:6:6], 0x91, 0x90, 0x91), 0xc6, 0xff, 0xff, 0xff, 0xff)},
		{"bytes of length 100 million", append(append(head[:6:6], 0x91, 0x90, 0x91), 0xc6, 0x05, 0xf5, 0xe1, 0x00)},
		{"an array of all that is left, and its first element is wrong",
			append(append(head[:6:6], announce(many)...), bytes.Repeat([]byte{0xc1}, many)...)},
		{"arrays in arrays", append(append(head[:6:6], announce(many)...), bytes.Repeat(announce(many), many/5+1)...)},
		{"empty writes", append(append(head[:6:6], announce(many)...), bytes.Repeat([]byte{0x90}, 2*many)...)},
		{"empty ops", append(append(append(head[:6:6], 0x91, 0x90), announce(many)...), bytes.Repeat([]byte{0xc4, 0, 0xc0}, many)...)},
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
	f.Add([]byte{command.Version, 3, 1, 1, 1, 0x90, 0xdd, 0xff, 0xff, 0xff, 0xff})
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
		return command.EncodeWrites(c.Session, c.Seq, c.Low, c.Kept, encoded)
	case command.KindResolve:
		return command.EncodeResolve(c.Session, c.Seq)
	}
	panic(fmt.Sprintf("kind %d was decoded", c.Kind))
}

func FuzzDecode(f *testing.F) {
	write := command.EncodeWrite(sampleWrite)
	addSeeds(f, command.EncodeInit(clusterID), command.EncodeRegister(), command.EncodeAdmit("/ip4/10.0.0.1/tcp/9490", clusterID), command.EncodeWrites(1, 2, 30, []command.Span{span(3, 4)}, [][]byte{write, write}), command.EncodeResolve(1, 2))
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
	addSeeds(f, command.EncodeResult(command.Result{Index: 70000, Outcomes: sampleOutcomes}))
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
