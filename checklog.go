package skiff

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"
)

// openLog opens what there is of a log, without changing it.
func (c *checker) openLog(path string) (closeLog func() error, err error) {
	nothing := func() error { return nil }
	empty, err := isEmpty(path)
	if err != nil {
		return nothing, err
	}
	if empty {
		c.log = raft.NewInmemStore()
		return nothing, nil
	}
	log, closeLog, err := openLogStore(c.ctx, path, c.report.LogStore, true)
	if err != nil {
		return nothing, err
	}
	file := path
	if c.report.LogStore == LogStoreWAL {
		file = filepath.Join(path, metadb.FileName)
	}
	c.boltsOwnCheck(file)
	c.log = checkedLog{log, path}
	return closeLog, nil
}

// entries reads all entries, in the order of the log.
func (c *checker) entries(path string) error {
	first, err := c.log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := c.log.LastIndex()
	if err != nil {
		return err
	}
	c.report.LogFirst, c.report.LogLast = first, last
	term := uint64(0)
	for i := first; i <= last && last > 0 && c.ctx.Err() == nil; i++ {
		var entry raft.Log
		err := c.log.GetLog(i, &entry)
		switch {
		case err != nil:
			c.found(path, err)
			continue
		case entry.Term < term:
			c.found(path, fmt.Errorf("entry %d is of term %d, after one of term %d", i, entry.Term, term))
		}
		term = entry.Term
	}
	c.report.Term, c.report.LogLastTerm = term, term // the node's is that at least
	return nil
}

// stable reads term and vote.
func (c *checker) stable() error {
	path := c.path("raft", stableFile)
	if err := verifyStable(c.ctx, path); err != nil {
		return err
	}
	c.boltsOwnCheck(path)
	stable, err := openRaftBolt(path, true)
	if err != nil {
		return err
	}
	var term uint64
	if stable != nil {
		defer func() { _ = stable.Close() }() // nothing was written
		if term, err = storedTerm(checkedStable{stable, path}); err != nil {
			return err
		}
	}
	inLog := c.report.Term
	c.report.Term = term
	if term < inLog {
		return fmt.Errorf("the term is %d, and the log has an entry of term %d", term, inLog)
	}
	return nil
}

// boltsOwnCheck lets bbolt check a file, which has been verified so far that bbolt
// does not trip over it.
func (c *checker) boltsOwnCheck(path string) {
	if empty, err := isEmpty(path); empty || err != nil {
		return
	}
	db, err := bbolt.Open(path, 0o600, boltReadOnly())
	if err == nil {
		err = errors.Join(db.View(func(tx *bbolt.Tx) error {
			for problem := range tx.Check() {
				c.found(path, problem)
			}
			return nil
		}), db.Close())
	}
	if err != nil {
		c.found(path, err)
	}
}

// frozenLog is a log from which nothing is removed.
type frozenLog struct{ raft.LogStore }

func (frozenLog) DeleteRange(uint64, uint64) error { return nil }
