package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// flipsPerKind is how many bytes are flipped in each kind of file;
// SKIFF_TEST_FLIPS sets another number.
func flipsPerKind(t *testing.T, n int) int {
	if s := os.Getenv("SKIFF_TEST_FLIPS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// specimen is the data directory of a node that was stopped, and what is in it.
type specimen struct {
	t       *testing.T
	change  func(*skiff.Options)
	c       *cluster
	dir     string
	content map[string]string
	report  skiff.CheckReport
}

// newSpecimen makes a directory with tables and a journal, a snapshot and entries
// after it. With late, the snapshot is in the middle of the journal.
func newSpecimen(t *testing.T, store skiff.LogStore, late bool) *specimen {
	t.Helper()
	s := &specimen{t: t, content: map[string]string{}, change: func(o *skiff.Options) {
		markersOnDemand(o)
		o.HeartbeatTimeout = 50 * time.Millisecond
		o.LogStore = store
		o.TrailingLogs = 5
		o.StateOptions = &opt.Options{WriteBuffer: 64 << 10, CompactionTableSize: 32 << 10, BlockSize: 1 << 10}
	}}
	s.c = newCluster(t, 1, s.change)
	s.dir = filepath.Join(s.c.dir, "0")
	s.write(0, 20)
	s.c.snapshot(0)
	s.write(20, 30)
	s.c.kill(0)
	s.c.start(0)
	s.write(30, 33)
	if late {
		s.write(33, 36)
		s.c.snapshot(0)
	}
	s.write(36, 38)
	sum, err := s.c.node(0).Checksum(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	s.c.kill(0)
	s.report = s.check()
	if r := s.report; len(r.Problems) > 0 || r.Sum != sum.String() || r.AppliedIndex != sum.Index || r.Keys != uint64(len(s.content)) {
		t.Fatalf("before any damage: %+v, the node had %v at %d and %d keys", r, sum, sum.Index, len(s.content))
	}
	return s
}

func (s *specimen) write(from, to int) {
	s.t.Helper()
	for i := from; i < to; i++ {
		var b leveldb.Batch
		for j := range 100 {
			key, value := fmt.Sprintf("key-%d-%d", j, i%25), fmt.Sprintf("value %d of %d %s", j, i, strings.Repeat("x", j%50))
			b.Put([]byte(key), []byte(value))
			s.content[key] = value
		}
		if err := s.c.node(0).DB().Write(&b, nil); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *specimen) check() skiff.CheckReport {
	s.t.Helper()
	report, err := skiff.Check(testContext(s.t), s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

// kindOf tells what a file in a data directory is, empty for what is only for
// people, and for locks.
func kindOf(path string) string {
	name, dir := filepath.Base(path), filepath.Base(filepath.Dir(path))
	switch ext := filepath.Ext(name); {
	case strings.HasPrefix(name, "LO"), // LOCK, LOG
		name == "CURRENT.bak":
		return ""
	case name == "CURRENT" && dir == "state":
		return "state's CURRENT"
	case strings.HasPrefix(name, "MANIFEST"):
		return "MANIFEST"
	case ext == ".ldb":
		return "table"
	case ext == ".log":
		return "journal"
	case ext == ".wal":
		return "segment"
	}
	return name
}

// files are the files of the directory by their kind.
func (s *specimen) files() map[string][]string {
	s.t.Helper()
	files := map[string][]string{}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if kind := kindOf(path); err == nil && !d.IsDir() && kind != "" {
			files[kind] = append(files[kind], path)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(files) < 8 {
		s.t.Errorf("files of %d kinds only", len(files))
	}
	return files
}

// used is how many bytes of a file carry something: segments are allocated in
// advance.
func used(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, 1<<20)
	n, _ := f.ReadAt(data, 0)
	data = data[:n]
	if kindOf(path) == "segment" {
		data = []byte(strings.TrimRight(string(data), "\x00"))
	}
	return data
}

// flip changes a byte, by preference one that is not zero, which most are that carry
// nothing. It returns its offset and what puts it back.
func flip(t *testing.T, rnd *rand.Rand, file string) (offset int64, undo func()) {
	t.Helper()
	data := used(t, file)
	at := rnd.IntN(len(data))
	for tries := 0; data[at] == 0 && tries < 20; tries++ {
		at = rnd.IntN(len(data))
	}
	was, now := data[at], data[at]^byte(1+rnd.IntN(255))
	if rnd.IntN(2) == 0 {
		now = was ^ 1<<rnd.IntN(8)
	}
	overwrite(t, file, int64(at), now)
	return int64(at), func() { overwrite(t, file, int64(at), was) }
}

func overwrite(t *testing.T, file string, at int64, b byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{b}, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Check sees each flipped byte, or it is one that carries nothing.
func TestCheckSeesFlippedBytes(t *testing.T) {
	t.Parallel()
	for _, store := range []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL} {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				s := newSpecimen(t, store, false)
				rnd := rand.New(rand.NewPCG(testSeed(t), 0))
				for kind, files := range s.files() {
					seen := 0
					for range flipsPerKind(t, 5) {
						file := files[rnd.IntN(len(files))]
						offset, undo := flip(t, rnd, file)
						report := s.check()
						undo()
						switch {
						case len(report.Problems) > 0:
							seen++
							if !slices.ContainsFunc(report.Problems, func(p skiff.Problem) bool { return p.File == file || p.File == filepath.Dir(file) }) {
								t.Errorf("byte %d of %s: %v", offset, file, report.Problems)
							}
						case fmt.Sprint(report) != fmt.Sprint(s.report):
							t.Errorf("byte %d of %s: nothing was seen, but %+v, not %+v", offset, file, report, s.report)
						}
					}
					if seen == 0 && slices.Contains([]string{"MANIFEST", "CURRENT", "state's CURRENT", "journal", "segment", "skiff.json"}, kind) {
						t.Errorf("no flipped byte was seen in %s", kind)
					}
				}
				if got := s.check(); fmt.Sprint(got) != fmt.Sprint(s.report) {
					t.Errorf("at the end: %+v, not %+v", got, s.report)
				}
			})
		})
	}
}

// copyTo makes a copy of the directory.
func (s *specimen) copyTo(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, used(t, path), 0o600); err != nil {
			return err
		}
		return os.Truncate(target, info.Size())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyOf prepares a cluster whose node has a copy of the directory.
func (s *specimen) copyOf(t *testing.T) *specimen {
	t.Helper()
	c := prepareCluster(t, 1, s.change)
	dir := filepath.Join(c.dir, "0")
	s.copyTo(t, dir)
	return &specimen{t: t, change: s.change, c: c, dir: dir, content: s.content, report: s.report}
}

// clear tells whether an error says what is damaged and what to do.
func clear(err error, file string) bool {
	text := fmt.Sprint(err)
	return errors.Is(err, skiff.ErrCorrupt) && strings.Contains(text, filepath.Base(file)) &&
		(strings.Contains(text, "let the node rejoin") || strings.Contains(text, "let the node join again"))
}

// A node on a directory with a flipped byte does not start, or gives what was written
// or a clear error, also after compactions.
func TestNodesOnFlippedBytes(t *testing.T) {
	t.Parallel()
	for _, store := range []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL} {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			s := newSpecimen(t, store, false)
			seed := testSeed(t)
			for kind := range s.files() {
				t.Run(kind, func(t *testing.T) {
					t.Parallel()
					rnd := rand.New(rand.NewPCG(seed, 0))
					for range flipsPerKind(t, 2) {
						d := s.copyOf(t)
						files := d.files()[kind]
						file := files[rnd.IntN(len(files))]
						offset, _ := flip(t, rnd, file)
						t.Logf("byte %d of %s", offset, file)
						d.use(file)
					}
				})
			}
		})
	}
}

// use starts a node and does what one does with it; an error has to be about file.
func (s *specimen) use(file string) {
	t := s.t
	n := s.c.newNode(0)
	if err := n.Start(testContext(t)); err != nil {
		if !clear(err, file) {
			t.Errorf("start: %v", err)
		}
		return
	}
	defer func() {
		if err := n.Stop(testContext(t)); err != nil && !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Errorf("stop: %v", err)
		}
	}()
	if err := n.WaitReady(testContext(t)); err != nil {
		if !errors.Is(err, skiff.ErrFailed) || !clear(err, file) {
			t.Errorf("wait until ready: %v", err)
		}
		return
	}
	for range 2 {
		s.readAll(n.DB(), file)
		if err := n.DB().CompactRange(util.Range{}); err != nil && !clear(err, file) {
			t.Errorf("compact: %v", err)
		}
	}
	if err := n.DB().Put([]byte("new"), nil, nil); err != nil && (!errors.Is(err, skiff.ErrFailed) || !clear(err, file)) {
		t.Errorf("put: %v", err)
	}
}

// readAll reads everything, twice over.
func (s *specimen) readAll(db *skiff.DB, file string) {
	got, err := contentOf(db.NewIterator(nil, nil))
	switch {
	case err != nil && !clear(err, file):
		s.t.Errorf("iterate: %v", err)
	case err == nil && !maps.Equal(got, s.content):
		s.t.Errorf("iterate: %d keys, want %d, or other values", len(got), len(s.content))
	}
	db = db.WithConsistency(skiff.Stale)
	for key, value := range s.content {
		v, err := db.Get([]byte(key), nil)
		if err != nil && !clear(err, file) || err == nil && string(v) != value {
			s.t.Errorf("get %s: %q, %v, want %q", key, v, err, value)
			return
		}
	}
}

func contentOf(it iterator.Iterator) (map[string]string, error) {
	defer it.Release()
	content := map[string]string{}
	for it.Next() {
		content[string(it.Key())] = string(it.Value())
	}
	return content, it.Error()
}

// What a crash or damage has cut off from the journal comes back from the log, if the
// log has it. If it does not, that is said.
func TestJournalCutOff(t *testing.T) {
	t.Parallel()
	s := newSpecimen(t, skiff.LogStoreBolt, true)
	cut := func(name string, change func(t *testing.T, file string), repairable bool) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := s.copyOf(t)
			file := d.files()["journal"][0]
			change(t, file)
			report := d.check()
			if len(report.Problems) == 0 || report.AppliedIndex >= s.report.AppliedIndex {
				t.Fatalf("%+v", report)
			}
			for _, p := range report.Problems {
				if p.Repairable != repairable {
					t.Errorf("%+v", p)
				}
			}
			n := d.c.newNode(0)
			told := n.Subscribe(100)
			err := n.Start(testContext(t))
			if !repairable {
				if !errors.Is(err, skiff.ErrCorrupt) || !strings.Contains(err.Error(), d.dir) {
					t.Errorf("start: %v, want ErrCorrupt", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e := next[skiff.Warning](t, told); !strings.Contains(e.Err.Error(), "the state ends early, and is repaired from the log: ") {
				t.Errorf("warning: %v", e.Err)
			}
			if got, err := contentOf(n.DB().NewIterator(nil, nil)); err != nil || !maps.Equal(got, s.content) {
				t.Errorf("%d keys, %v, want %d", len(got), err, len(s.content))
			}
			if err := n.Stop(testContext(t)); err != nil {
				t.Error(err)
			}
			if report := d.check(); len(report.Problems) > 0 || report.Keys != s.report.Keys {
				t.Errorf("afterwards: %+v", report)
			}
		})
	}
	cut("torn", func(t *testing.T, file string) {
		if err := os.Truncate(file, int64(len(used(t, file))-10)); err != nil {
			t.Fatal(err)
		}
	}, true)
	cut("damaged", func(t *testing.T, file string) {
		data := used(t, file)
		overwrite(t, file, int64(len(data)-10), data[len(data)-10]^1)
	}, true)
	cut("damaged before the snapshot", func(t *testing.T, file string) {
		overwrite(t, file, 10, used(t, file)[10]^1)
	}, false)
}

// A table is damaged while the node runs. Whoever reads it, wherever he is, hears of
// it, and so does the node when it has to write.
func TestDamagedTableOfARunningNode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := newSpecimen(t, skiff.LogStoreBolt, false).copyOf(t)
		s.c.start(0)
		s.c.waitReady()
		tables := s.files()["table"]
		var file string
		for _, table := range tables {
			data := used(t, table)
			if len(data) < 10<<10 {
				continue
			}
			file = table
			for at := 1 << 10; at < len(data)-(4<<10); at += 1 << 10 { // nearly all blocks
				overwrite(t, table, int64(at), data[at]^1)
			}
		}
		if file == "" {
			t.Fatal("no table is large")
		}
		isClear := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, skiff.ErrCorrupt) || !strings.Contains(err.Error(), ".ldb") || !strings.Contains(err.Error(), "wipe the data directory") {
				t.Errorf("%s: %v, want ErrCorrupt, the file and the way out", what, err)
			}
		}
		n := s.c.node(0)
		for where, db := range map[string]*skiff.DB{"node": n.DB(), "client": dialCluster(s.c)} {
			_, err := contentOf(db.NewIterator(nil, nil))
			isClear(where+" iterate", err)
			_, err = contentOf(db.NewIterator(nil, &opt.ReadOptions{Strict: opt.StrictOverride}))
			isClear(where+" iterate, and never mind", err)
			snap, err := db.GetSnapshot()
			if err != nil {
				t.Fatal(err)
			}
			_, err = contentOf(snap.NewIterator(nil, nil))
			isClear(where+" iterate over a snapshot", err)
			tr, err := db.OpenTransaction()
			if err != nil {
				t.Fatal(err)
			}
			_, err = contentOf(tr.NewIterator(nil, nil))
			isClear(where+" iterate in a transaction", err)
			tr.Discard()
			_, err = db.Checksum(testContext(t))
			isClear(where+" checksum", err)
			isClear(where+" get", firstError(s.content, db.Get))
			isClear(where+" get from a snapshot", firstError(s.content, snap.Get))
			snap.Release()
		}
		isClear("compact", n.DB().CompactRange(util.Range{}))
		var err error
		for ctx := testContext(t); err == nil && ctx.Err() == nil; { // goleveldb takes a moment
			err = n.DB().WithContext(ctx).Put([]byte("k"), nil, nil)
			time.Sleep(time.Millisecond)
		}
		isClear("put", err)
		if !errors.Is(err, skiff.ErrFailed) {
			t.Fatalf("put: %v, want ErrFailed", err)
		}
		<-n.Done()
		isClear("the node", n.Err())
		_ = n.Stop(testContext(t)) // it has said what there is to say
		s.c.forget(0)
	})
}

func firstError(content map[string]string, get func([]byte, *opt.ReadOptions) ([]byte, error)) error {
	for key := range content {
		if _, err := get([]byte(key), nil); err != nil {
			return err
		}
	}
	return nil
}

// stamps are the files in a directory, with content and time.
func stamps(t *testing.T, dir string) map[string]string {
	t.Helper()
	stamps := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && d.IsDir() {
			stamps[path] = fmt.Sprint(info.Mode(), info.ModTime())
		} else if err == nil {
			stamps[path] = fmt.Sprint(info.Mode(), info.ModTime(), info.Size(), string(used(t, path)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return stamps
}

func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		for _, store := range []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL} {
			s := newSpecimen(t, store, false)
			for _, damage := range []string{"", "journal", "MANIFEST", "skiff.json"} {
				if damage != "" {
					file := s.files()[damage][0]
					overwrite(t, file, 20, used(t, file)[20]^1)
				}
				before := stamps(t, s.dir)
				s.check()
				if after := stamps(t, s.dir); !maps.Equal(after, before) {
					t.Errorf("%s, after damage to %q: something has changed", store, damage)
				}
			}
		}
	})
}

// What is no damage but a reason not to check.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		dir := filepath.Join(c.dir, "0")
		check := func(dir string, want error) {
			t.Helper()
			if _, err := skiff.Check(testContext(t), dir); !errors.Is(err, want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		check(dir, skiff.ErrInUse)
		c.kill(0)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := skiff.Check(ctx, dir); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
		check(filepath.Join(dir, "missing"), fs.ErrNotExist)
		check(t.TempDir(), skiff.ErrMismatch)
		check(filepath.Join(dir, "raft"), skiff.ErrMismatch)
		if err := os.WriteFile(filepath.Join(dir, "skiff.json"), identityOfFormat(t, 1), 0o600); err != nil {
			t.Fatal(err)
		}
		check(dir, skiff.ErrMismatch)
	})
}

// All that is wrong is told, not only the first thing.
func TestCheckReportsAll(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := newSpecimen(t, skiff.LogStoreBolt, false)
		files := s.files()
		damaged := []string{files["skiff.json"][0], files["log.db"][0], files["stable.db"][0], files["journal"][0]}
		for _, file := range damaged {
			data := used(t, file)
			at := 100
			if kindOf(file) == "stable.db" {
				at = 4096 + 32 // in a meta page
			}
			if kindOf(file) == "log.db" {
				at = 32
			}
			overwrite(t, file, int64(at), data[at]^1)
		}
		report := s.check()
		for _, file := range damaged {
			if !slices.ContainsFunc(report.Problems, func(p skiff.Problem) bool { return p.File == file }) {
				t.Errorf("nothing of %s: %v", file, report.Problems)
			}
		}
		if report.LogStore != skiff.LogStoreBolt || report.Sum == "" {
			t.Errorf("%+v", report)
		}
	})
}

// The node was killed before it had got anywhere, or has lost a file.
func TestCheckIncomplete(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		c.put(0, "k")
		c.kill(0)
		dir := filepath.Join(c.dir, "0")
		for _, step := range []struct {
			remove   string
			problems bool
		}{
			{filepath.Join("raft", "stable.db"), true}, // and with it votes
			{"raft", true}, // and with it what is after the snapshot
			{filepath.Join("state", "CURRENT"), true},
			{"state", false},
			{"LOCK", false},
		} {
			if err := os.RemoveAll(filepath.Join(dir, step.remove)); err != nil {
				t.Fatal(err)
			}
			report, err := skiff.Check(testContext(t), dir)
			if err != nil || (len(report.Problems) > 0) != step.problems || report.Address != c.addrs[0] {
				t.Errorf("without %s: %+v, %v", step.remove, report, err)
			}
			if step.remove == filepath.Join("raft", "stable.db") {
				if err := startNode(t, c, c.addrs[0], skiff.Options{Dir: dir}); !clear(err, step.remove) {
					t.Errorf("start without %s: %v", step.remove, err)
				}
			}
		}
	})
}
