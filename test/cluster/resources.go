package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/skiffdb/skiff/test/process"
)

// maxMemory bounds what a node's process may use that holds little data: a race
// detector makes it several times as much.
const maxMemory = 300 << 20

// maxFiles bounds the file descriptors that such a process has open when nobody works
// with it: about 15 are its own, there is one for each connection, and tables of the
// state come and go.
const maxFiles = 60

// CheckResources fails the test if a node uses more memory or file descriptors than it
// should, or has left files in its data directory that belong to nothing. The cluster
// has settled, and nobody works.
func (c *Cluster) CheckResources() {
	c.t.Helper()
	for _, i := range c.Members() {
		n := c.node(i)
		p := n.current()
		if p == nil {
			c.t.Errorf("node %d does not run", i)
			continue
		}
		memory, err := p.Memory()
		c.must(err, "memory of node %d", i)
		if memory > maxMemory && !process.Race {
			c.t.Errorf("node %d uses %d MB of memory, and may use %d", i, memory>>20, maxMemory>>20)
		}
		c.eventually(fmt.Sprintf("node %d has nothing too many", i), func(context.Context) error {
			open, err := p.Files()
			if err == nil && open > maxFiles {
				err = fmt.Errorf("%d file descriptors are open, of which there may be %d", open, maxFiles)
			}
			return errors.Join(err, strangers(n.disk.Path()))
		})
	}
}

// known are the files of a data directory.
var known = regexp.MustCompile(`^(LOCK|skiff\.json|raft/(log|stable)\.db|raft/wal/(wal-meta\.db|[0-9a-f-]+\.wal)|` +
	`state/CURRENT|state/state-[0-9a-f]+/(CURRENT(\.bak)?|LOCK|LOG(\.old)?|MANIFEST-\d+|\d+\.(log|ldb)))$`)

// strangers tells of files that are not known, or of a second state.
func strangers(dir string) error {
	states := map[string]bool{}
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it has just gone
		case err != nil:
			return err
		case entry.IsDir():
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || !known.MatchString(name) {
			return fmt.Errorf("there is %s", name)
		}
		if state, inState := strings.CutPrefix(filepath.Dir(name), "state/"); inState {
			states[state] = true
		}
		if len(states) > 1 {
			return fmt.Errorf("there are %d states", len(states))
		}
		return nil
	})
}

// Files is how many file descriptors each member has open.
func (c *Cluster) Files() (files []int) {
	c.t.Helper()
	for _, i := range c.Members() {
		p := c.node(i).current()
		if p == nil {
			c.t.Fatalf("node %d does not run", i)
		}
		open, err := p.Files()
		c.must(err, "files of node %d", i)
		files = append(files, open)
	}
	return files
}
