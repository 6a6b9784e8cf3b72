package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func newCasCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cas KEY OLD NEW | cas KEY NEW --version VERSION",
		Short: "Compare and set: change the value of a key if it is as expected",
		Long: `Set the value of a key to NEW if it is OLD or, with --version, if nobody has written the key
since it had that version, and print the new version. Otherwise the exit code is 4, and
nothing is written. The version 0 means that the key does not exist, the value "-" of NEW
standard input, taken as it is.`,
		Example: `  skiff cas light red green
  skiff cas counter 8 --version "$(skiff get counter --versions | cut -f 1)"
  date | skiff cas started - --version 0`,
		Args: cobra.RangeArgs(2, 3),
	}
	version := cmd.Flags().Uint64("version", 0, "expect this `version` instead of a value")
	keys := newKeyParser(cmd)
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := versionFormat(cmd)
		if err != nil {
			return err
		}
		key, err := keys.parse(args[0])
		if err != nil {
			return err
		}
		byVersion := cmd.Flags().Changed("version")
		if byVersion != (len(args) == 2) {
			return usagef("give KEY, OLD and NEW, or KEY, NEW and --version")
		}
		if err := c.check(); err != nil {
			return err
		}
		value, err := readValue(cmd.Context(), e, args[len(args)-1:], "", false)
		if err != nil {
			return err
		}
		expected := skiff.IfVersion(key, *version)
		if !byVersion {
			expected = skiff.IfValue(key, []byte(args[1]))
		}
		return c.request(cmd.Context(), func(ctx context.Context, db *skiff.DB) error {
			batch := new(leveldb.Batch)
			batch.Put(key, value)
			version, err := db.WriteIf(ctx, batch, expected)
			if err != nil {
				return atKey(key, err)
			}
			return printVersion(e.stdout, format, version)
		})
	}
	return cmd
}

func versionFormat(cmd *cobra.Command) (string, error) {
	return outputFormat(cmd, "table", "raw", "json", "jsonl")
}

func printVersion(w io.Writer, format string, version uint64) error {
	if format == "json" || format == "jsonl" {
		return printJSON(w, struct {
			Version uint64 `json:"version"`
		}{version})
	}
	_, err := fmt.Fprintln(w, version)
	return err
}
