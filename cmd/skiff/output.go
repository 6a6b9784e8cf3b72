package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// outputFormat returns the format that the user wants, or the first of those that
// the command has.
func outputFormat(cmd *cobra.Command, has ...string) (string, error) {
	format := cmd.Flag("output").Value.String()
	switch {
	case format == "":
		return has[0], nil
	case !slices.Contains(has, format):
		return "", usagef("%s has no output format %s, only %s", cmd.Name(), format, strings.Join(has, ", "))
	}
	return format, nil
}

// printJSON prints v on one line.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printRows prints rows as a table, a JSON array or JSON lines. The header and what
// cells returns are separated by tabs.
func printRows[T any](w io.Writer, format string, rows []T, header string, cells func(T) string) error {
	switch format {
	case "json":
		return printJSON(w, rows)
	case "jsonl":
		for _, row := range rows {
			if err := printJSON(w, row); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, header)
	for _, row := range rows {
		fmt.Fprintln(t, cells(row))
	}
	return t.Flush()
}

// recordWriter writes records one by one in an output format.
type recordWriter struct {
	w       *bufio.Writer
	encode  func([]byte, record) []byte
	array   bool // the records are the elements of a JSON array
	written int
	buf     []byte
}

func newRecordWriter(w io.Writer, format string) *recordWriter {
	encode := map[string]func([]byte, record) []byte{
		"table": appendTSV, "tsv": appendTSV, "raw": appendRaw, "hex": appendHex, "json": appendJSON, "jsonl": appendJSON,
	}[format]
	return &recordWriter{w: bufio.NewWriterSize(w, 64<<10), encode: encode, array: format == "json"}
}

func (w *recordWriter) write(r record) error {
	w.buf = w.buf[:0]
	switch {
	case w.array && w.written == 0:
		w.buf = append(w.buf, '[')
	case w.array:
		w.buf = append(w.buf, ",\n "...)
	}
	w.buf = w.encode(w.buf, r)
	if !w.array {
		w.buf = append(w.buf, '\n')
	}
	w.written++
	_, err := w.w.Write(w.buf)
	return err
}

// close completes the output; it does not close the writer below.
func (w *recordWriter) close() error {
	switch {
	case w.array && w.written == 0:
		_, _ = w.w.WriteString("[]\n")
	case w.array:
		_, _ = w.w.WriteString("]\n")
	}
	return w.w.Flush() // reports earlier errors too
}
