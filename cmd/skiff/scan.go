package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb/iterator"

	"github.com/skiffdb/skiff"
)

func newScanCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Print keys and values in key order",
		Long: `Print keys and values in key order, from one consistent view. The default output is
what 'skiff load --format tsv' reads; -o raw escapes nothing.`,
		Example: `  skiff scan --prefix user/
  skiff scan --from a --to n --limit 10
  skiff scan --reverse --limit 1
  skiff scan --keys-only -o hex
  skiff scan --prefix user/ -o jsonl | skiff load - --node OTHER`,
		Args: cobra.NoArgs,
	}
	keys := newKeyRange(cmd)
	limit := cmd.Flags().Int("limit", 0, "at most `n` keys (0: all)")
	reverse := cmd.Flags().Bool("reverse", false, "from the last key to the first")
	keysOnly := cmd.Flags().Bool("keys-only", false, "leave out the values")
	c := newReader(e, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := outputFormat(cmd, "table", "raw", "hex", "json", "jsonl")
		if err != nil {
			return err
		}
		if *limit < 0 {
			return usagef("--limit %d is negative", *limit)
		}
		slice, err := keys.parse()
		if err != nil {
			return err
		}
		return c.session(cmd.Context(), func(db *skiff.DB) error {
			out := newRecordWriter(e.stdout, format)
			it := db.NewIterator(slice, nil)
			defer it.Release()
			if err := writeRecords(cmd.Context(), out, it, direction(*reverse), *limit, *keysOnly); err != nil {
				return err
			}
			return out.close()
		})
	}
	return cmd
}

// steps move an iterator to where a scan begins, and on.
type steps struct{ first, next func(iterator.Iterator) bool }

func direction(reverse bool) steps {
	if reverse {
		return steps{iterator.Iterator.Last, iterator.Iterator.Prev}
	}
	return steps{iterator.Iterator.First, iterator.Iterator.Next}
}

// writeRecords writes what it yields, at most limit records unless that is 0.
func writeRecords(ctx context.Context, out *recordWriter, it iterator.Iterator, s steps, limit int, keysOnly bool) error {
	for ok := s.first(it); ok; ok = s.next(it) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := out.write(record{key: it.Key(), value: it.Value(), keyOnly: keysOnly}); err != nil {
			return err
		}
		if out.written == limit {
			break
		}
	}
	return it.Error()
}
