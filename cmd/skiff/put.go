package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func newPutCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put KEY VALUE | put KEY - | put KEY --file FILE",
		Short: "Set the value of a key",
		Long: `Set the value of a key. The value "-" means standard input, taken as it is. With
--if-absent, the exit code is 4, and nothing is written, if the key exists.`,
		Example: `  skiff put user/1 Ada
  skiff put user/1 Ada --if-absent
  skiff put photo --file photo.jpg
  date | skiff put now -`,
		Args: cobra.RangeArgs(1, 2),
	}
	file := cmd.Flags().String("file", "", "read the value from `file`")
	ifAbsent := cmd.Flags().Bool("if-absent", false, "only if the key does not exist")
	keys := newKeyParser(cmd)
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := keys.parse(args[0])
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
			if *ifAbsent {
				_, err := db.PutIfAbsent(ctx, key, value)
				return atKey(key, err)
			}
			return db.Put(key, value, nil)
		})
	}
	return cmd
}

func readValue(ctx context.Context, e *env, args []string, file string, fromFile bool) ([]byte, error) {
	switch {
	case fromFile == (len(args) == 1):
		return nil, usagef("give the value as an argument, as - for standard input, or with --file")
	case !fromFile && args[0] != "-":
		return []byte(args[0]), nil
	case !fromFile:
		file = "-"
	}
	in, err := openInput(ctx, e, file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	return io.ReadAll(in)
}

func newDelCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "del KEY...",
		Short: "Delete keys",
		Long:  "Delete one or more keys, all at once. It is no error if one does not exist.",
		Example: `  skiff del user/1
  skiff del user/1 user/2`,
		Args: cobra.MinimumNArgs(1),
	}
	keys := newKeyParser(cmd)
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		batch := new(leveldb.Batch)
		for _, arg := range args {
			key, err := keys.parse(arg)
			if err != nil {
				return err
			}
			batch.Delete(key)
		}
		return c.request(cmd.Context(), func(_ context.Context, db *skiff.DB) error {
			return db.Write(batch, nil)
		})
	}
	return cmd
}
