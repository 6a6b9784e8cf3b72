package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// appendTSV appends key, tab and value as printable text: backslash, tab, newline and
// return stand as \\, \t, \n and \r, other bytes that are no printable text as \xHH.
func appendTSV(dst []byte, r record) []byte {
	dst = appendEscaped(dst, r.key)
	if !r.keyOnly {
		dst = appendEscaped(append(dst, '\t'), r.value)
	}
	return dst
}

func appendEscaped(dst, content []byte) []byte {
	for len(content) > 0 {
		c, size := utf8.DecodeRune(content)
		switch {
		case c == '\\':
			dst = append(dst, `\\`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case (c == utf8.RuneError && size == 1) || !unicode.IsPrint(c):
			for _, b := range content[:size] {
				dst = fmt.Appendf(dst, `\x%02x`, b)
			}
		default:
			dst = append(dst, content[:size]...)
		}
		content = content[size:]
	}
	return dst
}

// decodeTSV reads what appendTSV writes. Bytes that need no escape may stand as
// they are, whatever they are.
func decodeTSV(line []byte) (record, error) {
	key, value, found := bytes.Cut(line, []byte{'\t'})
	switch {
	case !found:
		return record{}, errors.New("no tab between key and value")
	case bytes.IndexByte(value, '\t') >= 0:
		return record{}, errors.New(`more than one tab: write a tab in a key or value as \t`)
	}
	key, err := unescape(key)
	if err != nil {
		return record{}, fmt.Errorf("key: %w", err)
	}
	value, err = unescape(value)
	if err != nil {
		return record{}, fmt.Errorf("value: %w", err)
	}
	return record{key: key, value: value}, nil
}

func unescape(text []byte) ([]byte, error) {
	content := make([]byte, 0, len(text))
	for {
		plain, rest, found := bytes.Cut(text, []byte{'\\'})
		content = append(content, plain...)
		if !found {
			return content, nil
		}
		b, size, err := unescapeOne(rest)
		if err != nil {
			return nil, err
		}
		content = append(content, b)
		text = rest[size:]
	}
}

// unescapeOne decodes what follows a backslash.
func unescapeOne(rest []byte) (b byte, size int, err error) {
	if len(rest) == 0 {
		return 0, 0, errors.New(`a backslash at the end: write it as \\`)
	}
	switch rest[0] {
	case '\\':
		return '\\', 1, nil
	case 't':
		return '\t', 1, nil
	case 'n':
		return '\n', 1, nil
	case 'r':
		return '\r', 1, nil
	case 'x':
		var one [1]byte
		if len(rest) >= 3 {
			if _, err := hex.Decode(one[:], rest[1:3]); err == nil {
				return one[0], 3, nil
			}
		}
		return 0, 0, errors.New(`\x needs two hexadecimal digits`)
	}
	return 0, 0, fmt.Errorf(`unknown escape \%c: write a backslash as \\`, rest[0])
}
