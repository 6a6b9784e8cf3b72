package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func newGetCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key, byte for byte; on a terminal a newline follows.
The exit code is 3 if there is no such key.

With --versions, the version of the key and a tab come first, and JSON has "version". It is
a number that each write of the key makes greater; "skiff cas" and "skiff txn" take it. If
there is no such key, version 0 and an empty value are printed, which is what they take for
a key to be made; the exit code is 3 all the same.`,
		Example: `  skiff get user/1
  skiff get user/1 --versions
  skiff get user/1 -o json
  skiff get --hex-keys 00ff -o hex
  skiff get photo > photo.jpg`,
		Args: cobra.ExactArgs(1),
	}
	versions := cmd.Flags().Bool("versions", false, "print the version of the key, too")
	keys := newKeyParser(cmd)
	c := newReader(e, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := outputFormat(cmd, "raw", "hex", "json", "jsonl")
		if err != nil {
			return err
		}
		key, err := keys.parse(args[0])
		if err != nil {
			return err
		}
		return c.request(cmd.Context(), func(ctx context.Context, db *skiff.DB) error {
			value, version, err := db.GetVersioned(ctx, key)
			if err != nil && (!*versions || !errors.Is(err, leveldb.ErrNotFound)) {
				return atKey(key, err)
			}
			r := record{key: key, value: value, versioned: *versions, version: version}
			newline := isTerminal(e.stdout) && cmd.Flag("output").Value.String() == ""
			if printErr := printValue(e.stdout, format, r, newline); printErr != nil {
				return printErr
			}
			return atKey(key, err)
		})
	}
	return cmd
}

// atKey says which key an error is about that depends on what the key holds.
func atKey(key []byte, err error) error {
	if errors.Is(err, leveldb.ErrNotFound) || errors.Is(err, skiff.ErrConflict) {
		return fmt.Errorf("%.100q: %w", key, err)
	}
	return err
}

func printValue(w io.Writer, format string, r record, newline bool) error {
	var out []byte
	if r.versioned {
		out = append(strconv.AppendUint(out, r.version, 10), '\t')
	}
	switch format {
	case "hex":
		out = append(hex.AppendEncode(out, r.value), '\n')
	case "json", "jsonl":
		out = append(appendJSON(nil, r), '\n')
	default:
		out = append(out, r.value...)
		if newline {
			out = append(out, '\n')
		}
	}
	_, err := w.Write(out)
	return err
}

func newHasCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "has KEY",
		Short: "Tell whether a key exists",
		Long:  "Print true or false; the exit code is 0 or 3.",
		Example: `  skiff has user/1
  skiff has user/1 > /dev/null && echo there`,
		Args: cobra.ExactArgs(1),
	}
	keys := newKeyParser(cmd)
	c := newReader(e, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := outputFormat(cmd, "table", "raw", "json", "jsonl")
		if err != nil {
			return err
		}
		key, err := keys.parse(args[0])
		if err != nil {
			return err
		}
		return c.request(cmd.Context(), func(_ context.Context, db *skiff.DB) error {
			found, err := db.Has(key, nil)
			if err != nil {
				return err
			}
			return printFound(e.stdout, format, key, found)
		})
	}
	return cmd
}

func printFound(w io.Writer, format string, key []byte, found bool) error {
	out := "false\n"
	if found {
		out = "true\n"
	}
	if format == "json" || format == "jsonl" {
		out = string(appendField([]byte("{"), "key", key)) + `,"found":` + out[:len(out)-1] + "}\n"
	}
	if _, err := io.WriteString(w, out); err != nil {
		return err
	}
	if !found {
		return &toldError{leveldb.ErrNotFound}
	}
	return nil
}
