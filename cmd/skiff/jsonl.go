package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// appendJSON appends the record as a JSON object. What is not valid UTF-8 goes under
// another name, in base64.
func appendJSON(dst []byte, r record) []byte {
	dst = appendField(append(dst, '{'), "key", r.key)
	if !r.keyOnly {
		dst = appendField(append(dst, ','), "value", r.value)
	}
	if r.versioned {
		dst = strconv.AppendUint(append(dst, `,"version":`...), r.version, 10)
	}
	return append(dst, '}')
}

func appendField(dst []byte, name string, content []byte) []byte {
	dst = append(append(dst, '"'), name...)
	if !utf8.Valid(content) {
		dst = base64.StdEncoding.AppendEncode(append(dst, `_b64":"`...), content)
		return append(dst, '"')
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	_ = e.Encode(string(content)) // a string and a buffer cannot fail
	return append(append(dst, `":`...), bytes.TrimSuffix(text.Bytes(), []byte("\n"))...)
}

// decodeJSON reads what appendJSON writes, and nothing looser: a line that means
// something else than it says must not become data.
func decodeJSON(line []byte) (record, error) {
	fields, err := decodeFields(line)
	if err != nil {
		return record{}, err
	}
	return fields.record()
}

// jsonFields are the members of a JSON object. Whoever takes one says of what type it
// has to be.
type jsonFields map[string]json.RawMessage

func decodeFields(line []byte) (jsonFields, error) {
	if !utf8.Valid(line) {
		return nil, errors.New("not valid UTF-8: use key_b64 and value_b64")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	fields := jsonFields{}
	for d.More() {
		if err := fields.decodeNext(d); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if len(bytes.TrimSpace(line[d.InputOffset():])) > 0 {
		return nil, errors.New("more follows the JSON object")
	}
	return fields, nil
}

func (f jsonFields) decodeNext(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	name, isString := token.(string)
	if !isString {
		return errors.New("not a JSON object")
	}
	if _, twice := f[name]; twice {
		return fmt.Errorf("%q stands twice", name)
	}
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	f[name] = raw
	return nil
}

// hasLoneSurrogate tells whether a JSON string has an escape that stands for no
// character; encoding/json would replace it silently.
func hasLoneSurrogate(raw []byte) bool {
	unit := func(at int) rune {
		if at+6 > len(raw) || raw[at] != '\\' || raw[at+1] != 'u' {
			return 0
		}
		n, err := strconv.ParseUint(string(raw[at+2:at+6]), 16, 16)
		if err != nil {
			return 0
		}
		return rune(n)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if first := unit(i); utf16.IsSurrogate(first) {
			if utf16.DecodeRune(first, unit(i+6)) == unicode.ReplacementChar {
				return true
			}
			i += 10
		}
		i++ // what is escaped may be a backslash
	}
	return false
}

// record takes all fields for a record.
func (f jsonFields) record() (record, error) {
	key, err := f.take("key")
	if err != nil {
		return record{}, err
	}
	value, err := f.take("value")
	if err != nil {
		return record{}, err
	}
	return record{key: key, value: value}, f.empty()
}

// take removes a field that may stand in base64.
func (f jsonFields) take(name string) ([]byte, error) {
	text, plain, err := f.text(name)
	if err != nil {
		return nil, err
	}
	encoded, coded, err := f.text(name + "_b64")
	switch {
	case err != nil:
		return nil, err
	case plain && coded:
		return nil, fmt.Errorf("both %q and %q", name, name+"_b64")
	case plain:
		return []byte(text), nil
	case !coded:
		return nil, fmt.Errorf("no %q", name)
	}
	content, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name+"_b64", err)
	}
	return content, nil
}

// text removes a field that is a string, if it is there.
func (f jsonFields) text(name string) (text string, found bool, err error) {
	raw, found := f[name]
	delete(f, name)
	switch {
	case !found:
		return "", false, nil
	case raw[0] != '"':
		return "", true, fmt.Errorf("%q is not a string", name)
	case hasLoneSurrogate(raw):
		return "", true, fmt.Errorf("%q has half a surrogate pair", name)
	}
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", true, fmt.Errorf("%q: %w", name, err)
	}
	return text, true, nil
}

// number removes a field that is a whole number.
func (f jsonFields) number(name string) (uint64, error) {
	raw, found := f[name]
	delete(f, name)
	if !found {
		return 0, fmt.Errorf("no %q", name)
	}
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", name)
	}
	return n, nil
}

func (f jsonFields) empty() error {
	for name := range f {
		return fmt.Errorf("unknown field %q", name)
	}
	return nil
}
