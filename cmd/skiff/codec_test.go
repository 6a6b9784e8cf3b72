package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// codec is a format of a line.
type codec struct {
	encode func([]byte, record) []byte
	decode func([]byte) (record, error)
}

func codecs() map[string]codec {
	return map[string]codec{"jsonl": {appendJSON, decodeJSON}, "tsv": {appendTSV, decodeTSV}}
}

// anyBytes draws text and bytes that are none, with what formats treat specially.
func anyBytes() *rapid.Generator[[]byte] {
	special := rapid.SampledFrom([]string{"", "\t", "\n", "\r", `\`, `"`, "\x00", "\xff", "\xed\xa0\x80", "\u2028", "\ufffd", "<é𝄞>", `\ud800`, `\x`})
	return rapid.Custom(func(t *rapid.T) []byte {
		var b []byte
		for _, part := range rapid.SliceOfN(special, 0, 4).Draw(t, "special") {
			b = append(append(b, part...), rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "bytes")...)
		}
		return b
	})
}

func TestCodecsRoundTrip(t *testing.T) {
	for name, c := range codecs() {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			want := record{key: anyBytes().Draw(t, "key"), value: anyBytes().Draw(t, "value")}
			line := c.encode(nil, want)
			if bytes.ContainsAny(line, "\r\n") {
				t.Fatalf("%q is no line", line)
			}
			got, err := c.decode(line)
			if err != nil || !bytes.Equal(got.key, want.key) || !bytes.Equal(got.value, want.value) {
				t.Fatalf("%q became %+v, %v", line, got, err)
			}
		}))
	}
}

func TestHostileLines(t *testing.T) {
	for _, test := range []struct{ format, line, want string }{
		{"jsonl", ``, "not a JSON object"},
		{"jsonl", `null`, "not a JSON object"},
		{"jsonl", `["key"]`, "not a JSON object"},
		{"jsonl", `{"key":"k","value":"v"`, "not a JSON object"},
		{"jsonl", `{"key":"k","value":"v"}}`, "more follows"},
		{"jsonl", `{"key":"k","value":"v"} {}`, "more follows"},
		{"jsonl", `{"key":"k"}`, `no "value"`},
		{"jsonl", `{"value":"v"}`, `no "key"`},
		{"jsonl", `{"Key":"k","value":"v"}`, `no "key"`},
		{"jsonl", `{"key":1,"value":"v"}`, `"key" is not a string`},
		{"jsonl", `{"key":null,"value":"v"}`, `"key" is not a string`},
		{"jsonl", `{"key":{"key":"k"},"value":"v"}`, `"key" is not a string`},
		{"jsonl", `{"key":"k","key":"l","value":"v"}`, `"key" stands twice`},
		{"jsonl", `{"key":"k","key_b64":"","value":"v"}`, `both "key" and "key_b64"`},
		{"jsonl", `{"key":"k","value":"v","ttl":"1"}`, `unknown field "ttl"`},
		{"jsonl", `{"key":"k","value":"\ud800"}`, "surrogate"},
		{"jsonl", `{"key":"k","value":"\udc00\ud800"}`, "surrogate"},
		{"jsonl", `{"key":"k","value":"\ud800\\udc00"}`, "surrogate"},
		{"jsonl", "{\"key\":\"\xff\",\"value\":\"\"}", "not valid UTF-8"},
		{"jsonl", `{"key":"k","value_b64":"/x=="}`, "illegal base64"},
		{"jsonl", strings.Repeat("[", 1<<16), "not a JSON object"},
		{"jsonl", `{"key":` + strings.Repeat("[", 1<<16), "exceeded max depth"},
		{"tsv", "", "no tab"},
		{"tsv", "k", "no tab"},
		{"tsv", "k\tv\tw", "more than one tab"},
		{"tsv", `k` + "\t" + `\`, "backslash at the end"},
		{"tsv", `k\a` + "\t", `key: unknown escape \a`},
		{"tsv", `k` + "\t" + `\x4`, "two hexadecimal digits"},
		{"tsv", `k` + "\t" + `\xzz`, "two hexadecimal digits"},
	} {
		if got, err := codecs()[test.format].decode([]byte(test.line)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %.60q: %+v, %v; want an error with %q", test.format, test.line, got, err, test.want)
		}
	}
}

func TestLooseLines(t *testing.T) {
	for _, test := range []struct{ format, line string }{
		{"jsonl", ` { "value" : "v\ud834\udd1e\\ud800" , "key_b64" : "aw==" } `},
		{"tsv", "k\tv𝄞\\\\ud800"},
		{"tsv", "\\x6b\tv\\xf0\\x9d\\x84\\x9e\\\\ud800"},
	} {
		got, err := codecs()[test.format].decode([]byte(test.line))
		if err != nil || string(got.key) != "k" || string(got.value) != `v𝄞\ud800` {
			t.Errorf("%q: %q, %q, %v", test.line, got.key, got.value, err)
		}
	}
}

func FuzzDecodeLine(f *testing.F) {
	f.Add([]byte(`{"key":"k","value_b64":"/w=="}`))
	f.Add([]byte(`{"key":"\ud834\udd1e","value":"\\\u0000"}`))
	f.Add([]byte("k\\t\tv\\xff\\\\"))
	f.Add([]byte("{\t\xff"))
	f.Fuzz(func(t *testing.T, line []byte) {
		for name, c := range codecs() {
			r, err := c.decode(line)
			if err != nil {
				continue
			}
			again, err := c.decode(c.encode(nil, r))
			if err != nil || !bytes.Equal(r.key, again.key) || !bytes.Equal(r.value, again.value) {
				t.Errorf("%s: %q gave %+v, then %+v, %v", name, line, r, again, err)
			}
		}
	})
}

func TestLines(t *testing.T) {
	in := newLines("f", strings.NewReader("one\r\n\n"+strings.Repeat("x", 100)+"\n"), 50)
	for _, want := range []string{"one", ""} {
		if got, err := in.next(); err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	if _, err := in.next(); err == nil || err.Error() != "f:3: line is longer than 50 bytes" {
		t.Errorf("long line: %v", err)
	}
	if _, err := newLines("f", strings.NewReader(""), 50).next(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
}
