package skiff

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/walfile"
)

// CheckReport is what [Check] has found in a data directory. What could not be read
// is zero, and among the problems.
type CheckReport struct {
	Dir string `json:"dir"`

	Format      int      `json:"format"`
	Address     string   `json:"address"`
	ClusterID   string   `json:"cluster_id"` // hexadecimal; empty while not known
	Incarnation string   `json:"incarnation"`
	LogStore    LogStore `json:"log_store"`

	Term          uint64 `json:"term"`
	AppliedIndex  uint64 `json:"applied_index"` // the last entry in the state
	AppliedTerm   uint64 `json:"applied_term"`
	SnapshotIndex uint64 `json:"snapshot_index"` // the last entry covered by a snapshot
	LogFirst      uint64 `json:"log_first"`      // 0 if the log is empty
	LogLast       uint64 `json:"log_last"`
	LogLastTerm   uint64 `json:"log_last_term"` // of the entry at LogLast

	Keys uint64 `json:"keys"`
	// Sum is what [Checksum.String] gives for the state; empty if it cannot be read.
	Sum string `json:"sum"`

	Problems []Problem `json:"problems"` // none: the directory is sound
}

// Problem is one thing that is wrong in a data directory.
type Problem struct {
	File string `json:"file"` // or directory
	Text string `json:"text"`
	// Repairable: the next start puts it right, from the log. It is what a power loss
	// leaves, though it may have come otherwise. Of all other problems the way out is
	// to wipe the directory and let the node rejoin.
	Repairable bool `json:"repairable"`
	// Recovering: a [Recover] was interrupted. The way out is to run it again.
	Recovering bool `json:"recovering,omitempty"`
}

// String names the file and what to do.
func (p Problem) String() string {
	switch {
	case p.Recovering:
		return fmt.Sprintf("%s: %s", p.File, p.Text)
	case p.Repairable:
		return fmt.Sprintf("%s: %s; the next start repairs it from the log", p.File, p.Text)
	}
	return fmt.Sprintf("%s: %s; %s", p.File, p.Text, wayOut)
}

// Check verifies the data directory of a node that is not running. It reads all of
// it and changes nothing; a node cannot start in it meanwhile. Damage is no error
// but stands in the report; an error means that the directory could not be checked:
// it is in use ([ErrInUse]), it is none, or of a version unknown ([ErrMismatch]), or
// ctx has ended.
func Check(ctx context.Context, dir string) (CheckReport, error) {
	c := &checker{ctx: ctx, dir: dir, report: CheckReport{Dir: dir, Problems: []Problem{}}}
	err := c.run()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return c.report, &Error{Op: "check " + dir, Err: err}
	}
	return c.report, nil
}

// maxProblems bounds the problems that are told of one file.
const maxProblems = 20

// checker is one Check under way.
type checker struct {
	ctx    context.Context
	dir    string
	report CheckReport

	store *storage.Store // nil if it cannot be read
	log   raft.LogStore  // nil if it cannot be read

	recovery *datadir.Recovery // that is under way; nil if none is
}

func (c *checker) run() error {
	release, err := datadir.Hold(c.dir)
	if err != nil {
		return dirError(err)
	}
	defer func() { _ = release() }() // nothing was written
	return c.examine()
}

// examine reads all of a directory that is held.
func (c *checker) examine() error {
	if err := c.identity(); err != nil {
		return err
	}
	c.guard(c.path("state"), c.state)
	defer func() {
		if c.store != nil {
			_ = c.store.Close()
		}
	}()
	closeLog := func() error { return nil }
	log := logPath(c.path("raft"), c.report.LogStore)
	c.guard(log, func() (err error) {
		closeLog, err = c.openLog(log)
		return err
	})
	defer func() { _ = closeLog() }()
	if c.log != nil {
		c.guard(log, func() error { return c.entries(log) })
	}
	c.guard(c.path("raft", stableFile), c.stable)
	c.continuity()
	return nil
}

func (c *checker) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// guard notes what is wrong with a file, panics included.
func (c *checker) guard(file string, check func() error) {
	if err := survive(check); err != nil {
		c.found(file, err)
	}
}

// found notes a problem, under the file that it names itself or else the one given.
func (c *checker) found(file string, err error) { c.note(file, err, false) }

func (c *checker) note(file string, err error, repairable bool) {
	if c.ctx.Err() != nil {
		return // it is in the way of everything
	}
	text := err.Error()
	var damage *storage.DamageError
	var inLog *walfile.DamageError
	var identity *datadir.CorruptError
	switch {
	case errors.As(err, &damage):
		file, text = damage.File, damage.Err.Error()
	case errors.As(err, &inLog):
		file, text = inLog.File, inLog.Err.Error()
	case errors.As(err, &identity):
		file, text = identity.File, identity.Err.Error()
	}
	for _, known := range []string{ErrCorrupt.Error() + ": ", "open " + file + ": ", file + ": "} {
		text = strings.ReplaceAll(text, known, "")
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "; "+wayOut, ""), "\n", "; ")
	p := Problem{File: file, Text: text, Repairable: repairable}
	n := 0
	for _, known := range c.report.Problems {
		if known.File == file {
			n++
		}
		if known == p || n >= maxProblems {
			return
		}
	}
	c.report.Problems = append(c.report.Problems, p)
}

func (c *checker) identity() error {
	id, err := datadir.ReadIdentity(c.dir)
	var damage *datadir.CorruptError
	switch {
	case errors.As(err, &damage):
		c.found(damage.File, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: not the data directory of a node: %w", ErrMismatch, err)
	case err != nil:
		return dirError(err)
	}
	r := &c.report
	r.Format, r.Address, r.ClusterID, r.Incarnation, r.LogStore = id.Format, id.Address, id.ClusterID, id.Incarnation, LogStore(id.LogStore)
	if c.recovery = id.Recovery; c.recovery != nil {
		r.Problems = append(r.Problems, Problem{File: c.path("skiff.json"), Text: datadir.ErrRecovering.Error(), Recovering: true})
	}
	if r.LogStore == "" {
		r.LogStore = LogStoreWAL
		if _, err := os.Stat(logPath(c.path("raft"), LogStoreBolt)); err == nil {
			r.LogStore = LogStoreBolt
		}
	}
	return nil
}

// state opens the current state and reads all of it.
func (c *checker) state() error {
	current := c.path("state", storage.CurrentFile)
	name, err := c.currentState(current)
	if err != nil {
		c.found(current, err)
		return nil
	}
	if name == "" {
		c.store, err = storage.OpenMemory(nil)
		return err
	}
	place := c.path("state", name)
	store, err := storage.OpenReadOnly(place, nil)
	if err != nil {
		c.found(place, err)
		return nil
	}
	c.store = store
	if err := store.VerifyTables(c.ctx, func(err error) { c.found(place, err) }); err != nil {
		return err
	}
	c.guard(place, c.positions)
	c.guard(place, c.content)
	c.guard(place, func() error {
		return store.Sessions(func(id uint64, data []byte) error {
			if _, err := command.DecodeSession(data); err != nil {
				c.found(place, fmt.Errorf("session %d: %w", id, err))
			}
			return nil
		})
	})
	return nil
}

// currentState is the name of the current state, empty if there is none yet.
func (c *checker) currentState(file string) (string, error) {
	entries, err := os.ReadDir(c.path("state"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	hasState := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return storage.IsStateName(e.Name()) })
	data, err := os.ReadFile(file)
	name := strings.TrimSpace(string(data))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !hasState:
		return "", nil
	case errors.Is(err, fs.ErrNotExist):
		return "", errors.New("is missing")
	case err != nil:
		return "", err
	case !storage.IsStateName(name):
		return "", fmt.Errorf("names %q", name)
	}
	if _, err := os.Stat(c.path("state", name)); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("names %q, which is not there", name)
	}
	return name, nil
}

func (c *checker) positions() error {
	applied, err := c.store.Applied()
	if err != nil {
		return err
	}
	c.report.AppliedIndex, c.report.AppliedTerm = applied.Index, applied.Term
	marker, err := c.store.Marker()
	if err != nil {
		return err
	}
	c.report.SnapshotIndex = marker.Index
	if marker.Index > 0 {
		if _, err := snapshotMeta("", marker); err != nil {
			return err
		}
	}
	id, err := c.store.ClusterID()
	if err != nil {
		return err
	}
	// A crash can keep the id from being noted in skiff.json.
	if known := c.report.ClusterID; known != "" && id != nil && known != hex.EncodeToString(id) && !c.recovers(id) {
		return fmt.Errorf("the state is of cluster %x, the directory of %s", id, known)
	}
	return nil
}

// recovers tells whether a recovery is under way that gives the state this id.
func (c *checker) recovers(id []byte) bool {
	return c.recovery != nil && c.recovery.ClusterID == hex.EncodeToString(id)
}

func (c *checker) content() error {
	view, err := c.store.Snapshot()
	if err != nil {
		return err
	}
	defer view.Release()
	keys := uint64(0)
	sum, err := view.ChecksumEach(c.ctx, func(key, value []byte) {
		if storage.IsUserKey(key) {
			keys++
		}
		if err := storage.CheckPair(key, value, c.report.AppliedIndex); err != nil {
			c.found(c.store.Place(), err)
		}
	})
	if err != nil {
		return err
	}
	c.report.Keys, c.report.Sum = keys, hex.EncodeToString(sum[:])
	return nil
}

// continuity holds state, marker, log and term against each other, as a start does.
func (c *checker) continuity() {
	whole := c.store != nil && c.log != nil
	if whole {
		if err := checkContinuity(c.store, newRaftLog(frozenLog{c.log})); err != nil {
			whole = false
			c.found(c.dir, err)
		}
	}
	if c.store == nil {
		return
	}
	for _, cut := range c.store.Cut() {
		c.note(c.dir, cut, whole) // what the log does not have cannot be had again
	}
}
