package message

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// sample has what messages consist of.
type sample struct {
	Number  uint64
	Signed  int64
	Flag    bool
	Text    string
	Bytes   []byte
	Fixed   [4]byte
	Names   []string
	Parts   []part
	Inner   part
	Lengths map[string]int64
}

type part struct {
	_msgpack struct{} `msgpack:",as_array"` //nolint:unused // read by msgpack

	Key, Value []byte
	Version    uint64
}

var full = sample{
	Number: 1 << 40, Signed: -1, Flag: true, Text: "text", Bytes: make([]byte, 300), Fixed: [4]byte{1, 2, 3, 4},
	Names: []string{"a", "b"}, Parts: []part{{Key: []byte("k"), Version: 7}, {}}, Inner: part{Value: []byte("v")},
	Lengths: map[string]int64{"a": 1},
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hostile announce more than they have, or nest.
func hostile() map[string][]byte {
	const depth = 1 << 20
	nested := bytes.Repeat([]byte{0x91}, depth)
	return map[string][]byte{
		"nothing":                   {},
		"an array of four billion":  {0xdd, 0xff, 0xff, 0xff, 0xff},
		"a map of four billion":     {0xdf, 0xff, 0xff, 0xff, 0xff},
		"bytes of four billion":     {0xc6, 0xff, 0xff, 0xff, 0xff},
		"text of four billion":      {0xdb, 0xff, 0xff, 0xff, 0xff},
		"an extension of that size": {0xc9, 0xff, 0xff, 0xff, 0xff, 1},
		"bytes in an unknown field": {0x81, 0xa1, 'x', 0xc6, 0xff, 0xff, 0xff, 0xff},
		"arrays in arrays":          nested,
		"maps in maps":              bytes.Repeat([]byte{0x81, 0xa1, 'x'}, depth),
		"arrays in a field":         append([]byte{0x81, 0xa5, 'P', 'a', 'r', 't', 's'}, nested...),
		"millions of items":         append(binary.BigEndian.AppendUint32([]byte{0xdd}, 2*maxItems), bytes.Repeat([]byte{0xc0}, 2*maxItems)...),
		"a code that there is not":  {0xc1},
	}
}

func TestUnmarshalRefusesWhatAnnouncesMoreThanItHas(t *testing.T) {
	for name, b := range hostile() {
		for _, into := range []any{new(sample), new([]part), new([]byte), new(map[string]any)} {
			var err error
			if used := allocated(func() { err = Unmarshal(b, into) }); used > allowance(b) {
				t.Errorf("%s into %T: %d bytes were allocated for %d", name, into, used, len(b))
			}
			if err == nil {
				t.Errorf("%s into %T: no error", name, into)
			}
		}
	}
}

// allocated is how many bytes fn allocates. Nothing else may be running.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// allowance is how many bytes decoding b may allocate: an item of one byte can stand for
// a part, and slices grow by doubling.
func allowance(b []byte) uint64 { return 64<<10 + 300*uint64(len(b)) }

// What decodes is what its encoding says, and costs no more than it has bytes.
func FuzzUnmarshal(f *testing.F) {
	f.Add(marshal(f, &full))
	f.Add(marshal(f, full.Parts))
	f.Add(marshal(f, full.Bytes))
	f.Add(marshal(f, map[string]any{"Number": -1, "Text": 7, "Parts": "x"}))
	for _, b := range hostile() {
		f.Add(b[:min(len(b), 100)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, fresh := range []func() any{
			func() any { return new(sample) }, func() any { return new([]part) }, func() any { return new([]byte) },
			func() any { return new(string) }, func() any { return new(uint64) }, func() any { return &struct{}{} },
		} {
			v := fresh()
			var err error
			if used := allocated(func() { err = Unmarshal(b, v) }); used > allowance(b) {
				t.Errorf("into %T: %d bytes were allocated for %d", v, used, len(b))
			}
			if err != nil {
				continue
			}
			again := fresh()
			encoded := marshal(t, v)
			if err := Unmarshal(encoded, again); err != nil {
				t.Fatalf("%+v does not decode: %v", v, err)
			}
			if got := marshal(t, again); len(got) != len(encoded) { // maps have no order
				t.Errorf("%+v became %+v", v, again)
			}
		}
	})
}
