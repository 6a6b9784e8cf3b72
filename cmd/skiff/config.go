package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// config is the content of a config file.
type config struct {
	Nodes       []string `json:"nodes"`
	Timeout     string   `json:"timeout"`
	Consistency string   `json:"consistency"`
	Output      string   `json:"output"`
}

func readConfig(path string) (config, error) {
	var c config
	if path == "" {
		return c, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return c, usagef("config: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, usagef("config %s: %w", path, err)
	}
	return c, nil
}

// applySettings gives the flags of cmd that the command line leaves out the value
// of their environment variable or, failing that, of the config file.
func applySettings(cmd *cobra.Command, getenv func(string) string) error {
	path := cmd.Flag("config").Value.String()
	if path == "" {
		path = getenv("SKIFF_CONFIG")
	}
	file, err := readConfig(path)
	if err != nil {
		return err
	}
	for _, s := range []struct{ flag, variable, inFile string }{
		{"node", "SKIFF_NODES", strings.Join(file.Nodes, ",")},
		{"timeout", "SKIFF_TIMEOUT", file.Timeout},
		{"consistency", "SKIFF_CONSISTENCY", file.Consistency},
		{"output", "SKIFF_OUTPUT", file.Output},
	} {
		f := cmd.Flag(s.flag)
		if f == nil || f.Changed {
			continue
		}
		value, source := getenv(s.variable), s.variable
		if value == "" {
			value, source = s.inFile, "config "+path
		}
		if value == "" {
			continue
		}
		if err := f.Value.Set(value); err != nil {
			return usagef("%s: %s %q: %w", source, s.flag, value, err)
		}
	}
	return nil
}
