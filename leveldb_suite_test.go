package skiff_test

import (
	"math/rand"
	"os"
	"testing"
	"time"

	"github.com/onsi/ginkgo"
	"github.com/onsi/ginkgo/config"
	"github.com/onsi/gomega"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/testutil"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

var suiteHasRun bool

// TestGoleveldbSuite runs goleveldb's own tests of its DB on everything here that
// claims to be one. The seed is shown at a failure; -ginkgo.seed repeats it.
func TestGoleveldbSuite(t *testing.T) {
	if suiteHasRun {
		t.Skip("ginkgo runs a suite once in a process")
	}
	suiteHasRun = true
	t.Parallel()
	// The suite's own time limits use what ginkgo would rather see replaced.
	_ = os.Setenv("ACK_GINKGO_DEPRECATIONS", "1.16.5") // cannot fail with this name
	// A thousand passed specs are one line, so that a failure elsewhere can be seen.
	config.DefaultReporterConfig.Succinct = true
	config.DefaultReporterConfig.NoColor = true
	config.DefaultReporterConfig.SlowSpecThreshold = time.Hour.Seconds()

	single := newCluster(t, 1, inMemory)
	onDisk := newCluster(t, 1, nil)
	three := newCluster(t, 3, inMemory)
	client := dial(t, three, three.addrs[three.leader()])

	// Which node leads may change while this runs; all handles have to be right
	// all the time.
	for _, target := range []struct {
		name string
		db   *skiff.DB
	}{
		{"a single node", single.node(0).DB()},
		{"a single node on disk", onDisk.node(0).DB()},
		{"the leader of three", three.node(three.leader()).DB()},
		{"a follower of three", three.node(three.follower()).DB()},
		{"a client", client},
	} {
		ginkgo.Describe(target.name, func() { describeDB(target.db) })
	}
	testutil.RunSuite(t, "goleveldb's suite")
}

func describeDB(db *skiff.DB) {
	ginkgo.Describe("as a database", func() {
		describeReads(func(kv testutil.KeyValue) testutil.DB {
			replaceContent(db, kv)
			return newSuiteDB(db)
		})
		ginkgo.It("takes random writes", func() {
			replaceContent(db, testutil.KeyValue{})
			testutil.DoDBTesting(&testutil.DBTesting{DB: newSuiteDB(db), Deleted: manyKeys(6)})
		})
	})
	ginkgo.Describe("in a snapshot that is not the present", func() {
		describeReads(func(kv testutil.KeyValue) testutil.DB {
			replaceContent(db, kv)
			snapshot, err := db.GetSnapshot()
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			replaceContent(db, manyKeys(10))
			return suiteSnapshot{suiteReader{snapshot}, snapshot}
		})
	})
	ginkgo.Describe("in a transaction", func() {
		describeReads(func(kv testutil.KeyValue) testutil.DB { return openMixed(db, kv) })
		ginkgo.It("takes random writes, and commits them", func() { commitsRandomWrites(db) })
	})
}

// describeReads runs the reading part of the suite on what open makes of each of
// goleveldb's sets of keys.
func describeReads(open func(testutil.KeyValue) testutil.DB) {
	for name, kv := range map[string]testutil.KeyValue{
		"nothing":                {},
		"the empty key":          *testutil.KeyValue_EmptyKey(),
		"empty values":           *testutil.KeyValue_EmptyValue(),
		"one key":                *testutil.KeyValue_OneKeyValue(),
		"a big value":            *testutil.KeyValue_BigValue(),
		"a key of the last byte": *testutil.KeyValue_SpecialKey(),
		"keys that look alike":   *testutil.KeyValue_MultipleKeyValue(),
		"generated keys":         manyKeys(25),
	} {
		ginkgo.Context("with "+name, func() {
			var opened testutil.DB // by the first spec, for all that follow
			testutil.KeyValueTesting(nil, kv, nil, func(kv testutil.KeyValue) testutil.DB {
				if opened == nil {
					opened = open(kv)
				}
				return opened
			}, nil)
			ginkgo.It("ends", func() {
				if c, ok := opened.(interface{ close() }); ok {
					c.close()
				}
			})
		})
	}
}

func manyKeys(n int) testutil.KeyValue {
	return *testutil.KeyValue_Generate(rand.New(rand.NewSource(1)), n, 2, 1, 50, 10, 120)
}

// replaceContent makes kv all that there is in db, in one batch.
func replaceContent(db *skiff.DB, kv testutil.KeyValue) {
	var b leveldb.Batch
	it := db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		b.Delete(it.Key())
	}
	gomega.Expect(it.Error()).NotTo(gomega.HaveOccurred())
	kv.IterateShuffled(nil, func(_ int, key, value []byte) { b.Put(key, value) })
	gomega.Expect(db.Write(&b, nil)).To(gomega.Succeed())
}

// openMixed opens a transaction that sees kv: some keys are in the database, some
// are written by the transaction, others it has overwritten or deleted.
func openMixed(db *skiff.DB, kv testutil.KeyValue) testutil.DB {
	var before testutil.KeyValue
	var writes leveldb.Batch
	kv.Iterate(func(i int, key, value []byte) {
		switch i % 3 {
		case 0:
			writes.Put(key, value)
		case 1:
			before.Put(key, []byte("overwritten"))
			writes.Put(key, value)
		case 2:
			before.Put(key, value)
		}
		gone := append(append([]byte{}, key...), 0)
		before.PutU(gone, []byte("deleted"))
		writes.Delete(gone)
	})
	replaceContent(db, before)
	tr, err := db.OpenTransaction()
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	gomega.Expect(tr.Write(&writes, nil)).To(gomega.Succeed())
	return suiteTransaction{suiteReader{tr}, tr}
}

// commitsRandomWrites is the transaction test of goleveldb's external_test.go.
func commitsRandomWrites(db *skiff.DB) {
	replaceContent(db, testutil.KeyValue{})
	open := func() suiteTransaction {
		tr, err := db.OpenTransaction()
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		return suiteTransaction{suiteReader{tr}, tr}
	}
	outside := newSuiteDB(db)

	first := open()
	committed := &testutil.DBTesting{DB: first, Deleted: manyKeys(100)}
	testutil.DoDBTesting(committed)
	testutil.TestIter(outside, nil, testutil.KeyValue{})
	gomega.Expect(first.tr.Commit()).To(gomega.Succeed())
	testutil.TestIter(outside, nil, committed.Present)

	second := open()
	testutil.DoDBTesting(&testutil.DBTesting{
		DB: second, Deleted: committed.Deleted.Clone(), Present: committed.Present.Clone(),
	})
	second.tr.Discard()
	testutil.TestIter(outside, nil, committed.Present)
}

// The suite calls these in place of the methods proper.

type suiteReader struct{ levelReader }

func (r suiteReader) TestGet(key []byte) ([]byte, error) { return r.Get(key, nil) }
func (r suiteReader) TestHas(key []byte) (bool, error)   { return r.Has(key, nil) }

func (r suiteReader) TestNewIterator(slice *util.Range) iterator.Iterator {
	return r.NewIterator(slice, nil)
}

// TestFind finds the first key at or after key.
func (r suiteReader) TestFind(key []byte) (k, v []byte, err error) {
	it := r.NewIterator(nil, nil)
	defer it.Release()
	if !it.Seek(key) {
		if it.Error() == nil {
			return nil, nil, leveldb.ErrNotFound
		}
		return nil, nil, it.Error()
	}
	return append([]byte{}, it.Key()...), append([]byte{}, it.Value()...), nil
}

type suiteDB struct {
	suiteReader
	db *skiff.DB
}

func newSuiteDB(db *skiff.DB) suiteDB { return suiteDB{suiteReader{db}, db} }

func (s suiteDB) TestPut(key, value []byte) error { return s.db.Put(key, value, nil) }
func (s suiteDB) TestDelete(key []byte) error     { return s.db.Delete(key, nil) }

type suiteSnapshot struct {
	suiteReader
	snapshot *skiff.Snapshot
}

func (s suiteSnapshot) close() { s.snapshot.Release() }

type suiteTransaction struct {
	suiteReader
	tr *skiff.Transaction
}

func (s suiteTransaction) TestPut(key, value []byte) error { return s.tr.Put(key, value, nil) }
func (s suiteTransaction) TestDelete(key []byte) error     { return s.tr.Delete(key, nil) }
func (s suiteTransaction) close()                          { s.tr.Discard() }
