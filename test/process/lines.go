package process

import "bytes"

// lines cuts what is written to it into lines. An end without a newline is no line: the
// writer was killed.
type lines struct {
	each func([]byte)
	rest []byte
}

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte{'\n'})
		if !found {
			return len(b), nil
		}
		l.each(line)
		l.rest = rest
	}
}
