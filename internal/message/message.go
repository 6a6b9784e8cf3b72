// Package message decodes msgpack that comes from elsewhere: from other nodes and
// clients, and from disk.
package message

import (
	"bytes"
	"fmt"
	"io"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// What a message may consist of.
const (
	maxNesting = 8
	maxItems   = 1 << 20
)

// Unmarshal decodes a message. msgpack.Unmarshal by itself would allocate as many
// elements as an array announces, and follow nesting as deep as it goes, until the
// stack overflows.
func Unmarshal(b []byte, v any) error {
	if err := checkShape(b); err != nil {
		return err
	}
	return msgpack.Unmarshal(b, v)
}

func checkShape(b []byte) error {
	src := bytes.NewReader(b) // the decoder does not read ahead in it
	d := msgpack.NewDecoder(src)
	open := []int{1} // how many items are still to come, on each level
	for items := 0; len(open) > 0; {
		last := len(open) - 1
		if open[last] == 0 {
			open = open[:last]
			continue
		}
		open[last]--
		n, err := nextItem(d, src)
		switch items++; {
		case err != nil:
			return err
		case n < 0 || n > src.Len() || items > maxItems: // an item takes a byte at least
			return fmt.Errorf("msgpack: more items than can be, or than %d", maxItems)
		case n > 0 && len(open) >= maxNesting:
			return fmt.Errorf("msgpack: nested more than %d deep", maxNesting)
		case n > 0:
			open = append(open, n)
		}
	}
	return nil
}

// nextItem consumes an item, or the head of one that contains others, and returns
// how many those are.
func nextItem(d *msgpack.Decoder, src *bytes.Reader) (int, error) {
	code, err := d.PeekCode()
	switch {
	case err != nil:
		return 0, err
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		return d.DecodeArrayLen()
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		n, err := d.DecodeMapLen()
		return 2 * n, err
	case msgpcode.IsString(code), msgpcode.IsBin(code):
		n, err := d.DecodeBytesLen()
		return 0, skip(src, n, err)
	case msgpcode.IsExt(code):
		_, n, err := d.DecodeExtHeader()
		return 0, skip(src, n, err)
	}
	return 0, d.Skip()
}

// skip goes over n bytes, for which the decoder would allocate memory first.
func skip(src *bytes.Reader, n int, err error) error {
	if err == nil && (n < 0 || n > src.Len()) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = src.Seek(int64(n), io.SeekCurrent)
	}
	return err
}
