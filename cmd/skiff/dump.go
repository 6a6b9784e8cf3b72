package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newDumpCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dump [FILE]",
		Short: "Write all records to a file that load reads",
		Long: `Write all records, in key order and from one consistent view, as 'skiff load' reads
them: loading a dump gives every key and value byte for byte. Without FILE the dump goes to
standard output. A file appears under its name only when the dump is complete.`,
		Example: `  skiff dump backup.jsonl
  skiff dump backup.tsv.gz --format tsv --gzip
  skiff dump | jq -r .key`,
		Args: cobra.MaximumNArgs(1),
	}
	format := choice{"jsonl", []string{"jsonl", "tsv"}}
	addChoice(cmd, cmd.Flags(), &format, "format", "", "format of a line")
	compress := cmd.Flags().Bool("gzip", false, "compress with gzip")
	c := newReader(e, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.session(cmd.Context(), func(db *skiff.DB) error {
			if len(args) == 0 || args[0] == "-" {
				_, err := dump(cmd.Context(), db, e.stdout, format.value, *compress)
				return err
			}
			f, err := createAtomic(args[0])
			if err != nil {
				return err
			}
			n, err := dump(cmd.Context(), db, f, format.value, *compress)
			if err != nil {
				f.discard()
				return err
			}
			if err := f.commit(); err != nil {
				return err
			}
			fmt.Fprintf(e.stderr, "dumped %d records to %s\n", n, args[0])
			return nil
		})
	}
	return cmd
}

// dump writes all records to w and returns how many they are.
func dump(ctx context.Context, db *skiff.DB, w io.Writer, format string, compress bool) (records int, err error) {
	if compress {
		z := gzip.NewWriter(w)
		defer func() { err = errors.Join(err, z.Close()) }()
		w = z
	}
	out := newRecordWriter(w, format)
	it := db.NewIterator(nil, nil)
	defer it.Release()
	if err := writeRecords(ctx, out, it, direction(false), 0, false); err != nil {
		return out.written, err
	}
	return out.written, out.close()
}
