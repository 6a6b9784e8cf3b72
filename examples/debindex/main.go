// Command debindex turns a Debian package index into what "skiff load" reads, and
// checks that a cluster holds it:
//
//	debindex convert < Packages > packages.jsonl
//	debindex verify ADDRESS... < Packages
//
// The key is a package's name, the value its stanza. Where a name stands more
// than once, the last stanza counts.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/skiffdb/skiff"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "debindex:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "convert":
		w := bufio.NewWriter(out)
		if err := convert(in, w); err != nil {
			return err
		}
		return w.Flush()
	case len(args) >= 2 && args[0] == "verify":
		return verify(args[1:], in, out)
	}
	return errors.New("usage: debindex {convert | verify ADDRESS...}")
}

// record is a line of what "skiff load" reads. Bytes that are not UTF-8 go into
// the field in base64.
type record struct {
	Key         string `json:"key"`
	Value       string `json:"value,omitempty"`
	ValueBase64 []byte `json:"value_b64,omitempty"`
}

func convert(in io.Reader, out io.Writer) error {
	enc := json.NewEncoder(out)
	return stanzas(in, func(name string, stanza []byte) error {
		r := record{Key: name}
		if utf8.Valid(stanza) {
			r.Value = string(stanza)
		} else {
			r.ValueBase64 = stanza
		}
		return enc.Encode(r)
	})
}

// verify reads every package through each of the nodes and compares it byte for
// byte.
func verify(addresses []string, in io.Reader, out io.Writer) error {
	want := map[string][]byte{}
	err := stanzas(in, func(name string, stanza []byte) error {
		want[name] = bytes.Clone(stanza)
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if err := verifyNode(a, want); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %d packages, each byte for byte\n", a, len(want))
	}
	return nil
}

func verifyNode(address string, want map[string][]byte) (err error) {
	db, err := skiff.Dial(context.Background(), []string{address}, skiff.DialOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if s, err := db.NodeStats(context.Background()); err != nil || s.Address != address {
		return fmt.Errorf("%s answers in the place of %s (%w)", s.Address, address, err)
	}
	for name, stanza := range want {
		got, err := db.Get([]byte(name), nil)
		if err != nil {
			return fmt.Errorf("%s: package %s: %w", address, name, err)
		}
		if !bytes.Equal(got, stanza) {
			return fmt.Errorf("%s: package %s differs", address, name)
		}
	}
	return countKeys(db, address, len(want))
}

func countKeys(db *skiff.DB, address string, want int) error {
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := 0
	for it.Next() {
		n++
	}
	if n != want {
		return fmt.Errorf("%s: %d keys, want %d (%w)", address, n, want, it.Error())
	}
	return it.Error()
}

// maxLine is more than the longest line of an index, a Provides field.
const maxLine = 16 << 20

// stanzas calls fn with each stanza, without the empty line that ends it. fn must
// not keep it.
func stanzas(in io.Reader, fn func(name string, stanza []byte) error) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	var name string
	var stanza []byte
	flush := func() error {
		if len(stanza) == 0 {
			return nil
		}
		if name == "" {
			return fmt.Errorf("a stanza has no Package field: %.80q", stanza)
		}
		err := fn(name, stanza)
		name, stanza = "", stanza[:0]
		return err
	}
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if err := flush(); err != nil {
				return err
			}
			continue
		}
		if v, ok := bytes.CutPrefix(line, []byte("Package: ")); ok {
			name = string(v)
		}
		stanza = append(append(stanza, line...), '\n')
	}
	return errors.Join(lines.Err(), flush())
}
