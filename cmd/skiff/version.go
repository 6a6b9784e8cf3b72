package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

func newVersionCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: `  skiff version -o json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, err := outputFormat(cmd, "table", "json", "jsonl")
			if err != nil {
				return err
			}
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if format != "table" {
				return printJSON(e.stdout, struct {
					Version  string `json:"version"`
					Go       string `json:"go"`
					Platform string `json:"platform"`
				}{skiff.Version, runtime.Version(), platform})
			}
			_, err = fmt.Fprintf(e.stdout, "skiff %s %s %s\n", skiff.Version, runtime.Version(), platform)
			return err
		},
	}
}
