package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/google/shlex"
	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// maxBatchLine bounds a line of a batch: a batch is at most 32 MiB, and JSON takes
// up to six bytes for one.
const maxBatchLine = 256 << 20

func newBatchCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "batch [OPERATION...]",
		Short: "Write several operations atomically",
		Long: `Write several operations atomically. They are given as arguments or, one on each line,
in a file or on standard input:

  put KEY VALUE     words as in a shell: quote with '…' or "…", # begins a comment
  del KEY
  {"op": "put", "key": "k", "value_b64": "AAE="}      "op" is "put" unless given
  {"op": "del", "key": "k"}

With conditions: "skiff txn".`,
		Example: `  skiff batch 'put from 90' 'put to 110' 'del lock'
  skiff batch --file operations.txt
  printf 'put a 1\ndel b\n' | skiff batch`,
	}
	file := cmd.Flags().String("file", "-", "read operations from `file`")
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.check(); err != nil {
			return err
		}
		t, err := readTransaction(cmd.Context(), e, args, *file, false)
		if err != nil {
			return err
		}
		return c.request(cmd.Context(), func(_ context.Context, db *skiff.DB) error {
			return db.Write(&t.batch, nil)
		})
	}
	return cmd
}

// transaction is what the lines of a batch or, if it is conditional, of a transaction
// say.
type transaction struct {
	conditional bool
	conditions  []skiff.Condition
	batch       leveldb.Batch
}

// readTransaction reads the lines that are given as arguments or, where there are
// none, in a file. A mistake in an argument is one in usage.
func readTransaction(ctx context.Context, e *env, args []string, file string, conditional bool) (*transaction, error) {
	t := &transaction{conditional: conditional}
	if len(args) > 0 {
		if err := t.decode(newLines("arguments", strings.NewReader(strings.Join(args, "\n")), maxBatchLine)); err != nil {
			return nil, &usageError{err}
		}
		return t, nil
	}
	in, err := openInput(ctx, e, file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	return t, t.decode(newLines(inputName(file), in, maxBatchLine))
}

func (t *transaction) decode(in *lines) error {
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.decodeLine(bytes.TrimSpace(line)); err != nil {
			return in.fail(err)
		}
	}
}

// decodeLine adds the operation or condition on a line.
func (t *transaction) decodeLine(line []byte) error {
	if bytes.HasPrefix(line, []byte("{")) {
		return t.decodeJSON(line)
	}
	if !utf8.Valid(line) {
		return errors.New("not valid UTF-8: write the operation in JSON")
	}
	words, err := shlex.Split(string(line))
	switch {
	case err != nil:
		return err
	case len(words) == 0:
		return nil
	case words[0] == "put" && len(words) == 3:
		t.batch.Put([]byte(words[1]), []byte(words[2]))
	case words[0] == "del" && len(words) == 2:
		t.batch.Delete([]byte(words[1]))
	case words[0] == "if":
		return t.decodeCondition(words[1:])
	default:
		return errors.New("want 'put KEY VALUE', 'del KEY' or a JSON object")
	}
	return nil
}

func (t *transaction) decodeJSON(line []byte) error {
	fields, err := decodeFields(line)
	if err != nil {
		return err
	}
	if _, conditional := fields["if"]; conditional {
		return t.decodeJSONCondition(fields)
	}
	op, given, err := fields.text("op")
	switch {
	case err != nil:
		return err
	case op == "put" || !given:
		r, err := fields.record()
		if err != nil {
			return err
		}
		t.batch.Put(r.key, r.value)
		return nil
	case op == "del":
		key, err := fields.take("key")
		if err != nil {
			return err
		}
		t.batch.Delete(key)
		return fields.empty()
	}
	return fmt.Errorf(`"op" is %q, not "put" or "del"`, op)
}
