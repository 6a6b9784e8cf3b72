package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// openInput opens a file, or standard input for "-". Reading standard input fails
// when ctx ends, so that nobody waits for somebody to type.
func openInput(ctx context.Context, e *env, name string) (io.ReadCloser, error) {
	if name == "-" {
		out, in := io.Pipe()
		go func() {
			_, err := io.Copy(in, e.stdin)
			in.CloseWithError(err)
		}()
		context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
		return out, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// inputName names what openInput opens, for a reader.
func inputName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// gunzip decompresses r if its first bytes are those of gzip.
func gunzip(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if string(magic) != "\x1f\x8b" {
		return b, nil
	}
	return gzip.NewReader(b)
}

// lines reads an input line by line and knows where it is. It never holds more
// than one line, of at most max bytes. A return before the newline is dropped.
type lines struct {
	name    string
	number  int64 // of the line that next returned last
	max     int
	scanner *bufio.Scanner
}

func newLines(name string, r io.Reader, max int) *lines {
	s := bufio.NewScanner(r)
	s.Buffer(nil, max)
	return &lines{name: name, max: max, scanner: s}
}

// next returns the next line, valid until the one after it, or io.EOF.
func (l *lines) next() ([]byte, error) {
	if !l.scanner.Scan() {
		err := l.scanner.Err()
		switch {
		case err == nil:
			return nil, io.EOF
		case errors.Is(err, bufio.ErrTooLong):
			err = fmt.Errorf("line is longer than %d bytes", l.max)
		}
		return nil, &lineError{l.name, l.number + 1, err}
	}
	l.number++
	return l.scanner.Bytes(), nil
}

// fail says that something is wrong with the current line.
func (l *lines) fail(err error) error {
	return &lineError{l.name, l.number, err}
}

// lineError is an error at a line of an input.
type lineError struct {
	name string
	line int64
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.name, e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }
