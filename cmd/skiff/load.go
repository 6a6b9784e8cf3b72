package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// loadOptions are the flags of load.
type loadOptions struct {
	format         choice
	records, bytes int
	parallel       int
	maxLine        int
	state          string
	timeout        time.Duration
}

func newLoadCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "load FILE",
		Short: "Put the records of a file",
		Long: `Put the records of a file, one on each line, plain or compressed with gzip; "-" is
standard input.

  jsonl   {"key": "k", "value": "v"}, or key_b64 and value_b64 in base64
  tsv     key, tab, value; backslash, tab, newline and return in them stand as
          \\, \t, \n and \r, and any byte may stand as \xHH

Empty lines are skipped, and a return at the end of a line is dropped. A key that comes
twice ends with its last value. A batch whose outcome is unknown is written again, until
it is acknowledged or --timeout has passed for it.

With --resume a state file records up to which line everything is acknowledged; the same
command then goes on from there, after a failure as after kill -9.`,
		Example: `  skiff load users.jsonl
  skiff load users.tsv.gz --format tsv --resume users.state
  skiff dump --node OLD | skiff load - --node NEW`,
		Args: cobra.ExactArgs(1),
	}
	o := &loadOptions{format: choice{"jsonl", []string{"jsonl", "tsv"}}}
	addChoice(cmd, cmd.Flags(), &o.format, "format", "", "format of a line")
	cmd.Flags().IntVar(&o.records, "batch", 500, "at most `n` records in a batch")
	cmd.Flags().IntVar(&o.bytes, "batch-bytes", 1<<20, "at most `n` bytes in a batch of several records")
	cmd.Flags().IntVar(&o.parallel, "parallel", 4, "at most `n` batches under way")
	cmd.Flags().IntVar(&o.maxLine, "max-line", 64<<20, "at most `n` bytes in a line")
	cmd.Flags().StringVar(&o.state, "resume", "", "go on from, and record in, this state `file`")
	c := newClient(e, cmd, 30*time.Second)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.timeout = c.timeout
		if err := o.validate(); err != nil {
			return err
		}
		return c.session(cmd.Context(), func(db *skiff.DB) error {
			return load(cmd.Context(), e, db, args[0], o)
		})
	}
	return cmd
}

func (o *loadOptions) validate() error {
	for name, n := range map[string]int{
		"batch": o.records, "batch-bytes": o.bytes, "parallel": o.parallel, "max-line": o.maxLine,
	} {
		if n < 1 {
			return usagef("--%s %d is not positive", name, n)
		}
	}
	return nil
}

func load(ctx context.Context, e *env, db *skiff.DB, name string, o *loadOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := openInput(ctx, e, name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	want, err := describeLoad(ctx, db, name, in, o)
	if err != nil {
		return err
	}
	resume, err := openResumeFile(o.state, want)
	if err != nil {
		return err
	}
	bar := newProgress(e.stderr, want.Size)
	text, err := gunzip(io.TeeReader(in, bar))
	if err != nil {
		return fmt.Errorf("%s: %w", inputName(name), err)
	}
	start := time.Now()
	l := newLoader(db, o, resume, cancel)
	err = l.load(ctx, newLines(inputName(name), text, o.maxLine))
	bar.done()
	fmt.Fprintln(e.stderr, summary(l.records, l.bytes, time.Since(start)))
	if err != nil {
		fmt.Fprintln(e.stderr, resumeAdvice(inputName(name), resume))
	}
	return err
}

// describeLoad tells this load from others. Its line is 0.
func describeLoad(ctx context.Context, db *skiff.DB, name string, in io.Reader, o *loadOptions) (resumeState, error) {
	state := resumeState{Input: name, Size: -1, Format: o.format.value}
	if f, ok := in.(*os.File); ok {
		info, err := f.Stat()
		if err != nil {
			return state, err
		}
		if info.Mode().IsRegular() {
			state.Size = info.Size()
		}
		if state.Input, err = filepath.Abs(name); err != nil {
			return state, err
		}
	}
	if o.state == "" {
		return state, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	var err error
	state.Cluster, err = clusterID(ctx, db)
	return state, err
}

// clusterID waits until the cluster has an id: a new one gets it from its first leader.
func clusterID(ctx context.Context, db *skiff.DB) (string, error) {
	for {
		stats, err := db.NodeStats(ctx)
		if err != nil || stats.ClusterID != "" {
			return stats.ClusterID, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w: the cluster has no id yet", skiff.ErrNoLeader)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func summary(records, bytes int64, took time.Duration) string {
	seconds := max(took.Seconds(), 0.001)
	return fmt.Sprintf("loaded %d records, %s in %s (%.0f records/s, %s/s)", records, formatBytes(float64(bytes)),
		took.Round(time.Millisecond), float64(records)/seconds, formatBytes(float64(bytes)/seconds))
}

func formatBytes(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if n < 1024 {
			return fmt.Sprintf("%.4g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.4g GiB", n)
}

func resumeAdvice(name string, r *resumeFile) string {
	if r.path == "" {
		return fmt.Sprintf("everything up to line %d of %s is acknowledged; loading it again from the start does no harm, --resume would go on from there",
			r.state.Line, name)
	}
	return fmt.Sprintf("everything up to line %d of %s is acknowledged; the same command, with --resume %s, goes on from there",
		r.state.Line, name, r.path)
}
