package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// openRaft runs what one writes oneself in an afternoon: hashicorp/raft with default
// configuration over goleveldb, one entry for each write, VerifyLeader before each read.
// Snapshots cost it nothing and hold nothing. A write or a linearizable read on a
// follower is not supported: raft has none.
func openRaft(store string) func(dir string) (*cluster, error) {
	return func(dir string) (*cluster, error) {
		var members []*raftMember
		c := &cluster{leaderOnly: true, close: func() (err error) {
			for _, m := range members {
				err = errors.Join(err, m.close())
			}
			return err
		}}
		var servers []raft.Server
		for i := range 3 {
			m, err := openRaftMember(filepath.Join(dir, fmt.Sprint(i)), store)
			if err != nil {
				return nil, errors.Join(err, c.close())
			}
			members = append(members, m)
			servers = append(servers, raft.Server{ID: raft.ServerID(m.address), Address: m.address})
		}
		if err := members[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
			return nil, errors.Join(err, c.close())
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			for i, m := range members {
				if m.raft.VerifyLeader().Error() == nil {
					c.leader = m
					for _, f := range without(members, i) {
						c.followers = append(c.followers, f)
					}
					return c, nil
				}
			}
			if time.Now().After(deadline) {
				return nil, errors.Join(errors.New("raft elects no leader"), c.close())
			}
		}
	}
}

type raftMember struct {
	raft    *raft.Raft
	address raft.ServerAddress
	db      *leveldb.DB
	closers []func() error
}

func openRaftMember(dir, store string) (m *raftMember, err error) {
	m = &raftMember{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o700); err != nil {
		return m, err
	}
	if m.db, err = leveldb.OpenFile(filepath.Join(dir, "state"), nil); err != nil {
		return m, err
	}
	m.closers = append(m.closers, m.db.Close)
	bolt, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return m, err
	}
	m.closers = append(m.closers, bolt.Close)
	var log raft.LogStore = bolt
	if store == "wal" {
		w, err := wal.Open(filepath.Join(dir, "wal"))
		if err != nil {
			return m, err
		}
		m.closers = append(m.closers, w.Close)
		log = w
	}
	cached, err := raft.NewLogCache(512, log)
	if err != nil {
		return m, err
	}
	logger := hclog.NewNullLogger()
	transport, err := raft.NewTCPTransportWithLogger("127.0.0.1:0", nil, 3, 10*time.Second, logger)
	if err != nil {
		return m, err
	}
	m.closers = append(m.closers, transport.Close)
	m.address = transport.LocalAddr()
	config := raft.DefaultConfig()
	config.LocalID, config.Logger = raft.ServerID(m.address), logger
	m.raft, err = raft.NewRaft(config, (*raftState)(m.db), cached, bolt, raft.NewDiscardSnapshotStore(), transport)
	return m, err
}

func (m *raftMember) close() (err error) {
	if m.raft != nil {
		err = m.raft.Shutdown().Error()
	}
	for i := len(m.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, m.closers[i]())
	}
	return err
}

func (m *raftMember) apply(b *leveldb.Batch) error {
	f := m.raft.Apply(b.Dump(), 10*time.Second)
	if errors.Is(f.Error(), raft.ErrNotLeader) {
		return errUnsupported
	}
	if err := f.Error(); err != nil {
		return err
	}
	err, _ := f.Response().(error)
	return err
}

func (m *raftMember) put(key, value []byte) error { return m.batch([][]byte{key}, [][]byte{value}) }

func (m *raftMember) batch(keys, values [][]byte) error { return m.apply(batchOf(keys, values)) }

func (m *raftMember) verify(f freshness) error {
	if f == stale {
		return nil
	}
	err := m.raft.VerifyLeader().Error()
	if errors.Is(err, raft.ErrNotLeader) {
		return errUnsupported
	}
	return err
}

func (m *raftMember) get(key []byte, f freshness) error {
	if err := m.verify(f); err != nil {
		return err
	}
	_, err := m.db.Get(key, nil)
	return err
}

func (m *raftMember) scan(first, limit []byte) (int, error) {
	if err := m.verify(linearizable); err != nil {
		return 0, err
	}
	return walk(m.db.NewIterator(&util.Range{Start: first, Limit: limit}, nil))
}

// raftState applies entries, which are batches. It is a raft.BatchingFSM: as many as
// raft hands over become one write.
type raftState leveldb.DB

// appliedKey has the index of the last entry that was applied.
var appliedKey = []byte("\x00applied")

func (s *raftState) Apply(l *raft.Log) any { return s.ApplyBatch([]*raft.Log{l})[0] }

func (s *raftState) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	var all, one leveldb.Batch
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		err := one.Load(l.Data)
		if err == nil {
			err = one.Replay(&all)
		}
		if err != nil {
			responses[i] = err
		}
	}
	all.Put(appliedKey, binary.BigEndian.AppendUint64(nil, logs[len(logs)-1].Index))
	if err := (*leveldb.DB)(s).Write(&all, nil); err != nil {
		for i := range responses {
			responses[i] = err
		}
	}
	return responses
}

func (s *raftState) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }

func (s *raftState) Restore(r io.ReadCloser) error { return r.Close() }

// nothing is a snapshot that holds nothing.
type nothing struct{}

func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }
func (nothing) Release()                             {}
