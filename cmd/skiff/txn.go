package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newTxnCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "txn [LINE...]",
		Short: "Write several operations atomically, if conditions hold",
		Long: `Write all operations if all conditions hold, and nothing otherwise: the exit code is 4
then. No other write comes in between. The version of all keys written is printed. Lines are
given as arguments, in a file or on standard input, as for "skiff batch", in any order:
conditions look at what was there before. Conditions alone are enough.

  if KEY absent
  if KEY present
  if KEY value VALUE
  if KEY version VERSION     as told by "skiff get --versions"; 0: absent
  put KEY VALUE
  del KEY
  {"if": "value", "key": "k", "value_b64": "AAE="}    also "absent" and "present"
  {"if": "version", "key": "k", "version": 17}
  {"op": "put", "key": "k", "value": "v"}

To read, change and write what was read, name the versions of what was read as conditions,
and begin again at exit code 4.`,
		Example: `  skiff txn 'if lock absent' 'put lock me'
  skiff txn --file transfer.txt
  printf 'if a value 100\nput a 90\nput b 10\n' | skiff txn

  set -- $(skiff get stock --versions)
  skiff txn "if stock version $1" "put stock $(($2 - 1))" 'put order/1 Ada'`,
	}
	file := cmd.Flags().String("file", "-", "read lines from `file`")
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := versionFormat(cmd)
		if err != nil {
			return err
		}
		if err := c.check(); err != nil {
			return err
		}
		t, err := readTransaction(cmd.Context(), e, args, *file, true)
		if err != nil {
			return err
		}
		if len(t.conditions) == 0 && t.batch.Len() == 0 {
			return usagef("no operations")
		}
		return c.request(cmd.Context(), func(ctx context.Context, db *skiff.DB) error {
			version, err := db.WriteIf(ctx, &t.batch, t.conditions...)
			if err != nil {
				return err
			}
			return printVersion(e.stdout, format, version)
		})
	}
	return cmd
}

var errUnconditional = errors.New(`a batch has no conditions: use "skiff txn"`)

// decodeCondition adds what words, after "if", say.
func (t *transaction) decodeCondition(words []string) error {
	if !t.conditional {
		return errUnconditional
	}
	kind := ""
	if len(words) >= 2 {
		kind = words[1]
	}
	var c skiff.Condition
	switch {
	case kind == "absent" && len(words) == 2:
		c = skiff.IfAbsent([]byte(words[0]))
	case kind == "present" && len(words) == 2:
		c = skiff.IfPresent([]byte(words[0]))
	case kind == "value" && len(words) == 3:
		c = skiff.IfValue([]byte(words[0]), []byte(words[2]))
	case kind == "version" && len(words) == 3:
		version, err := strconv.ParseUint(words[2], 10, 64)
		if err != nil {
			return fmt.Errorf("version %q is not a whole number", words[2])
		}
		c = skiff.IfVersion([]byte(words[0]), version)
	default:
		return errors.New("want 'if KEY absent', 'if KEY present', 'if KEY value VALUE' or 'if KEY version VERSION'")
	}
	t.conditions = append(t.conditions, c)
	return nil
}

func (t *transaction) decodeJSONCondition(fields jsonFields) error {
	if !t.conditional {
		return errUnconditional
	}
	kind, _, err := fields.text("if")
	if err != nil {
		return err
	}
	key, err := fields.take("key")
	if err != nil {
		return err
	}
	var c skiff.Condition
	switch kind {
	case "absent":
		c = skiff.IfAbsent(key)
	case "present":
		c = skiff.IfPresent(key)
	case "value":
		value, err := fields.take("value")
		if err != nil {
			return err
		}
		c = skiff.IfValue(key, value)
	case "version":
		version, err := fields.number("version")
		if err != nil {
			return err
		}
		c = skiff.IfVersion(key, version)
	default:
		return fmt.Errorf(`"if" is %q, not "absent", "present", "value" or "version"`, kind)
	}
	t.conditions = append(t.conditions, c)
	return fields.empty()
}
