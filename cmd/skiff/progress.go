package main

import (
	"io"

	"github.com/schollz/progressbar/v3"
)

// progress shows how much of an input has been read, on a terminal only.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress begins the progress of size bytes, or -1 if that is unknown.
func newProgress(w io.Writer, size int64) *progress {
	return &progress{progressbar.NewOptions64(size,
		progressbar.OptionSetVisibility(isTerminal(w)),
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(saveInterval),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
	)}
}

// Write counts what was read.
func (p *progress) Write(b []byte) (int, error) {
	_ = p.bar.Add(len(b))
	return len(b), nil
}

func (p *progress) done() { _ = p.bar.Finish() }
