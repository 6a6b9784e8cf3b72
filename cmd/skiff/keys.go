package main

import (
	"bytes"
	"encoding/hex"

	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// keyParser reads keys from the command line.
type keyParser struct{ hex bool }

func newKeyParser(cmd *cobra.Command) *keyParser {
	p := &keyParser{}
	cmd.Flags().BoolVar(&p.hex, "hex-keys", false, "keys on the command line are hexadecimal")
	return p
}

func (p *keyParser) parse(arg string) ([]byte, error) {
	if !p.hex {
		return []byte(arg), nil
	}
	key, err := hex.DecodeString(arg)
	if err != nil {
		return nil, usagef("key %q: %w", arg, err)
	}
	return key, nil
}

// keyRange is a range of keys on the command line.
type keyRange struct {
	*keyParser
	cmd              *cobra.Command
	prefix, from, to string
}

func newKeyRange(cmd *cobra.Command) *keyRange {
	r := &keyRange{keyParser: newKeyParser(cmd), cmd: cmd}
	cmd.Flags().StringVar(&r.prefix, "prefix", "", "only keys that begin with this `key`")
	cmd.Flags().StringVar(&r.from, "from", "", "only keys from this `key` on")
	cmd.Flags().StringVar(&r.to, "to", "", "only keys before this `key`")
	return r
}

func (r *keyRange) parse() (*util.Range, error) {
	prefix, err := r.keyParser.parse(r.prefix)
	if err != nil {
		return nil, err
	}
	from, err := r.keyParser.parse(r.from)
	if err != nil {
		return nil, err
	}
	to, err := r.keyParser.parse(r.to)
	if err != nil {
		return nil, err
	}
	result := util.BytesPrefix(prefix)
	if bytes.Compare(from, result.Start) > 0 {
		result.Start = from
	}
	if r.cmd.Flags().Changed("to") && (result.Limit == nil || bytes.Compare(to, result.Limit) < 0) {
		result.Limit = to
	}
	return result, nil
}
