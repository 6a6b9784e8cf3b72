package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/grpclog"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// etcdMember is a member of etcd's, with a client that calls it without a connection, as
// the program that embeds it has.
type etcdMember struct {
	server *embed.Etcd
	client *clientv3.Client
	dir    string
}

func openEtcdMember(o memberOptions) (member, error) {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(discard{}, discard{}, discard{}))
	var initial []string
	for i, p := range o.ports[:o.nodes] {
		initial = append(initial, fmt.Sprintf("n%d=http://127.0.0.1:%d", i, p))
	}
	c := etcdConfig(fmt.Sprintf("n%d", o.index), o.dir, o.ports[o.index], o.ports[o.nodes+o.index], strings.Join(initial, ","))
	if o.existing {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	s, err := embed.StartEtcd(c)
	if err != nil {
		return nil, err
	}
	return etcdMember{s, v3client.New(s.Server), o.dir}, nil
}

func (m etcdMember) readLocal(key []byte) (bool, error) {
	ctx, cancel := patiently()
	defer cancel()
	r, err := m.client.Get(ctx, orAny(key), clientv3.WithSerializable())
	if err != nil {
		return false, err
	}
	return len(r.Kvs) > 0, nil
}

func (m etcdMember) readLinearizable(key []byte) error {
	ctx, cancel := patiently()
	defer cancel()
	_, err := m.client.Get(ctx, orAny(key))
	return err
}

// orAny is key, or if it is empty, which etcd does not allow, one that may not exist.
func orAny(key []byte) string {
	if len(key) == 0 {
		return "any"
	}
	return string(key)
}

func (m etcdMember) leads() bool { return m.server.Server.Leader() == m.server.Server.MemberID() }

// snapshot copies the database into a file: what Maintenance.Snapshot sends, without the
// connection.
func (m etcdMember) snapshot() (err error) {
	database := m.server.Server.Backend().Snapshot()
	defer func() { err = errors.Join(err, database.Close()) }()
	f, err := os.Create(filepath.Join(m.dir, "copy"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, err := database.WriteTo(f); err != nil {
		return err
	}
	return f.Sync()
}

// compact forgets old revisions, which Skiff does not keep, and rewrites the database
// without them. Each member does that at a revision of its own, since only the one that
// is asked can tell when it has done so.
func (m etcdMember) compact() error {
	ctx, cancel := patiently()
	defer cancel()
	r, err := m.client.Put(ctx, "compacted", "")
	if err != nil {
		return err
	}
	if _, err := m.client.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	return m.server.Server.Backend().Defrag()
}

// stop waits until etcd is ready: Close would never return if it was called before.
func (m etcdMember) stop() error {
	<-m.server.Server.ReadyNotify()
	m.server.Close()
	return nil
}

func dialEtcdGroup(ports []int) (groupClient, error) {
	conn, err := dialEtcd(ports...)
	if err != nil {
		return groupClient{}, err
	}
	c := &etcdClient{conns: []*clientv3.Client{conn}}
	return groupClient{
		put: func(ctx context.Context, key, value []byte) error {
			_, err := conn.Put(ctx, string(key), string(value))
			return err
		},
		batch: c.batch,
		close: conn.Close,
	}, nil
}

// replaceEtcdMember has the others take member i out of the cluster and add it anew, as
// etcd demands of one that has lost its data.
func replaceEtcdMember(o memberOptions) error {
	ctx, cancel := patiently()
	defer cancel()
	c, err := dialEtcd(without(o.ports[o.nodes:], o.index)...)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for {
		added, err := replaceStep(ctx, c, o)
		if added {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("replace a member of etcd's: %w", errors.Join(context.Cause(ctx), err))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// replaceStep does what comes next, if etcd lets it: that refuses until those that are
// left have been connected for some seconds, and fails now and then. So each step begins
// with what is there.
func replaceStep(ctx context.Context, c *clientv3.Client, o memberOptions) (added bool, err error) {
	url := fmt.Sprintf("http://127.0.0.1:%d", o.ports[o.index])
	list, err := c.MemberList(ctx)
	if err != nil {
		return false, err
	}
	for _, m := range list.Members {
		switch {
		case !slices.Contains(m.PeerURLs, url):
		case m.Name == "": // it has never run
			return true, nil
		default:
			_, err := c.MemberRemove(ctx, m.ID)
			return false, err
		}
	}
	_, err = c.MemberAdd(ctx, []string{url})
	return false, err
}
