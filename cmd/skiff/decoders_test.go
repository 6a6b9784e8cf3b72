package main

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Lines come as they stand in an input, compressed or not, until one is too long.
func FuzzLines(f *testing.F) {
	const text = "one\r\n\ntwo\n" + "no end"
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.WriteString(w, text); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text))
	f.Add(packed.Bytes())
	f.Add(packed.Bytes()[:packed.Len()-5])
	f.Add(bytes.Repeat([]byte("x"), 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		const longest = 50
		r, err := gunzip(bytes.NewReader(data))
		if err != nil {
			return
		}
		text, _ := io.ReadAll(r) // as far as it goes
		want := strings.Split(string(text), "\n")
		in := newLines("f", bytes.NewReader(text), longest)
		for i := 0; ; i++ {
			line, err := in.next()
			var wrong *lineError
			switch {
			case errors.Is(err, io.EOF):
				if i < len(want)-1 {
					t.Errorf("%d lines of %d", i, len(want))
				}
				return
			case errors.As(err, &wrong):
				if wrong.line != int64(i+1) || len(want[i]) < longest-1 {
					t.Errorf("line %d, %q: %v", i+1, want[i], err)
				}
				return
			case err != nil:
				t.Fatal(err)
			case string(line) != strings.TrimSuffix(want[i], "\r") || len(line) > longest:
				t.Errorf("line %d is %q, want %q", i+1, line, want[i])
			}
		}
	})
}

// The files that the CLI reads, and keys in hexadecimal, are understood or refused.
func FuzzFiles(f *testing.F) {
	state := resumeState{Input: "f", Size: 7, Format: "tsv", Cluster: "c", Line: 3}
	encoded, err := json.Marshal(state)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte(`{"nodes":["a","b"],"timeout":"3s","consistency":"stale","output":"json"}`))
	f.Add([]byte(`["a","b","c"]`))
	f.Add([]byte("00ff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		file := filepath.Join(dir, "addresses.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = readConfig(file) // any text is a setting, of which its flag knows whether it is a right one
		r, err := openResumeFile(file, state)
		if err == nil && (r.state.Line < 0 || r.state.Cluster != state.Cluster) {
			t.Errorf("%q goes on with %+v", data, r.state)
		}
		if addresses, err := demoAddresses(dir); err == nil && len(addresses) != demoSize {
			t.Errorf("%q is taken for %q", data, addresses)
		}
		key, err := (&keyParser{hex: true}).parse(string(data))
		if err == nil && !strings.EqualFold(hex.EncodeToString(key), string(data)) {
			t.Errorf("%q is taken for %x", data, key)
		}
	})
}
