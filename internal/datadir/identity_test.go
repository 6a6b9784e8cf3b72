package datadir

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

var example = Identity{
	Format:      2,
	Address:     addressA,
	ClusterID:   "00c0ffee",
	LogStore:    "bolt",
	Incarnation: "000102030405060708090a0b0c0d0e0f",
}

// The file is for people to read as well.
const exampleFile = `{
  "identity": {
    "format": 2,
    "address": "/ip4/127.0.0.1/tcp/9490",
    "cluster_id": "00c0ffee",
    "log_store": "bolt",
    "incarnation": "000102030405060708090a0b0c0d0e0f"
  },
  "crc32c": "428e91e8"
}
`

func TestEncode(t *testing.T) {
	data, err := encode(example)
	if err != nil || string(data) != exampleFile {
		t.Fatalf("encode: %v\n%s", err, data)
	}
	if id, err := decode(data); err != nil || id != example {
		t.Fatalf("decode: %+v, %v", id, err)
	}
}

// A flipped byte is detected or harmless (whitespace), but never changes what the
// file says.
func TestDecodeDetectsEveryFlippedByte(t *testing.T) {
	data := []byte(exampleFile)
	for i := range data {
		for flip := 1; flip < 256; flip++ {
			damaged := bytes.Clone(data)
			damaged[i] ^= byte(flip)
			if id, err := decode(damaged); err == nil && id != example {
				t.Errorf("byte %d %q as %q reads as %+v", i, data[i], damaged[i], id)
			}
		}
	}
}

func TestDecodeDetectsTruncation(t *testing.T) {
	for n := range len(exampleFile) - 2 { // the last two are "}\n"
		if id, err := decode([]byte(exampleFile[:n])); err == nil {
			t.Errorf("%d bytes read as %+v", n, id)
		}
	}
}

// A right checksum does not make a file complete.
func TestDecodeValidates(t *testing.T) {
	raw := `{"format":2,"address":"a","cluster_id":"","log_store":"b","incarnation":"000102030405060708090a0b0c0d0e0f"}`
	seal := func(raw string) []byte {
		return fmt.Appendf(nil, `{"identity":%s,"crc32c":%q}`, raw, checksum([]byte(raw)))
	}
	if _, err := decode(seal(raw)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, reason string }{
		{`"a"`, `""`, `"address" is missing`},
		{`"address"`, `"x"`, `"address" is missing`},
		{`"b"`, `""`, `"log_store" is missing`},
		{`"cluster_id":""`, `"cluster_id":"x"`, `"cluster_id"`},
		{`0e0f`, ``, `"incarnation"`},
		{`0e0f`, `0e0x`, `"incarnation"`},
		{`"a"`, `1`, "address"},
		{`2,`, `"2",`, "format"},
	} {
		id, err := decode(seal(strings.Replace(raw, test.old, test.new, 1)))
		if err == nil || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s for %s: %+v, %v, want an error about %s", test.new, test.old, id, err, test.reason)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(exampleFile))
	f.Add([]byte(`{"identity":null,"crc32c":""}`))
	f.Add([]byte(`{"identity":{"format":1},"crc32c":"00000000"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := decode(data)
		if err != nil || id.Format != format {
			return
		}
		again, err := encode(id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(again); err != nil || got != id {
			t.Fatalf("%+v is read back as %+v, %v", id, got, err)
		}
	})
}
