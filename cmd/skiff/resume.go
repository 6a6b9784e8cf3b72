package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// saveInterval bounds how often the state of a load is synced to disk.
const saveInterval = 250 * time.Millisecond

// resumeState is what a state file remembers of a load: up to which line everything
// is acknowledged, and of what input into what cluster.
type resumeState struct {
	Input   string `json:"input"`
	Size    int64  `json:"size"` // -1: unknown
	Format  string `json:"format"`
	Cluster string `json:"cluster"`
	Line    int64  `json:"line"`
}

// resumeFile keeps a resumeState on disk. With an empty path it keeps nothing.
type resumeFile struct {
	path  string
	state resumeState
	saved time.Time
}

// openResumeFile reads the state file, if there is one, for the load that want
// describes.
func openResumeFile(path string, want resumeState) (*resumeFile, error) {
	r := &resumeFile{path: path, state: want}
	if path == "" {
		return r, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, r.save()
	}
	if err != nil {
		return nil, err
	}
	var found resumeState
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&found); err != nil || found.Line < 0 {
		return nil, fmt.Errorf("%s is no state file of a load", path)
	}
	want.Line = found.Line
	if found != want {
		return nil, usagef("%s belongs to another load: it is of %s, %d bytes, %s, into cluster %s; remove it to start over",
			path, found.Input, found.Size, found.Format, found.Cluster)
	}
	r.state = found
	return r, nil
}

// advance notes that everything up to line is acknowledged.
func (r *resumeFile) advance(line int64) error {
	r.state.Line = line
	if time.Since(r.saved) < saveInterval {
		return nil
	}
	return r.save()
}

// save writes the state to disk.
func (r *resumeFile) save() error {
	if r.path == "" {
		return nil
	}
	f, err := createAtomic(r.path)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(f).Encode(r.state); err != nil {
		f.discard()
		return err
	}
	r.saved = time.Now()
	return f.commit()
}
