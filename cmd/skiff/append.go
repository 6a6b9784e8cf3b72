package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newAppendCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "append PREFIX VALUE | append PREFIX - | append PREFIX --file FILE",
		Short: "Store a value under a new key that sorts after the earlier ones",
		Long: `Store a value under a new key and print the key: PREFIX with 20 characters after it that
grow from write to write, whoever writes. So "skiff scan --prefix PREFIX" lists values in the
order in which they were appended. The value "-" means standard input, taken as it is.`,
		Example: `  skiff append event/ started
  skiff get "$(skiff append event/ stopped)"
  skiff scan --prefix event/`,
		Args: cobra.RangeArgs(1, 2),
	}
	file := cmd.Flags().String("file", "", "read the value from `file`")
	keys := newKeyParser(cmd)
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := outputFormat(cmd, "raw", "table", "hex", "json", "jsonl")
		if err != nil {
			return err
		}
		prefix, err := keys.parse(args[0])
		if err != nil {
			return err
		}
		if err := c.check(); err != nil {
			return err
		}
		value, err := readValue(cmd.Context(), e, args[1:], *file, cmd.Flags().Changed("file"))
		if err != nil {
			return err
		}
		return c.request(cmd.Context(), func(ctx context.Context, db *skiff.DB) error {
			key, err := db.Append(ctx, prefix, value)
			if err != nil {
				return err
			}
			if format == "json" {
				format = "jsonl" // one object, no array
			}
			out := newRecordWriter(e.stdout, format)
			if err := out.write(record{key: key, keyOnly: true}); err != nil {
				return err
			}
			return out.close()
		})
	}
	return cmd
}
