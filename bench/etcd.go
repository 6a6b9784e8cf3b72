package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc/grpclog"
)

// etcdConns is how many connections the clients of one member share. More than this
// made no row of etcd's faster here.
const etcdConns = 4

// openEtcd runs three members with default options, but for the quota, which a long
// run would reach, and clientv3 to each of them alone.
func openEtcd(dir string) (*cluster, error) {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(discard{}, discard{}, discard{}))
	ports, err := freePorts(6)
	if err != nil {
		return nil, err
	}
	var initial []string
	for i := range 3 {
		initial = append(initial, fmt.Sprintf("n%d=http://127.0.0.1:%d", i, ports[i]))
	}
	var members []*embed.Etcd
	var closers []func() error
	c := &cluster{close: func() (err error) {
		for _, f := range closers {
			err = errors.Join(err, f())
		}
		for _, m := range members {
			m.Close()
		}
		return err
	}}
	for i := range 3 {
		m, err := embed.StartEtcd(etcdConfig(fmt.Sprintf("n%d", i), filepath.Join(dir, fmt.Sprint(i)), ports[i], ports[i+3], strings.Join(initial, ",")))
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		members = append(members, m)
	}
	for i, m := range members {
		select {
		case <-m.Server.ReadyNotify():
		case <-time.After(time.Minute):
			return nil, errors.Join(errors.New("etcd is not ready"), c.close())
		}
		e := &etcdClient{}
		for range etcdConns {
			conn, err := dialEtcd(ports[i+3])
			if err != nil {
				return nil, errors.Join(err, c.close())
			}
			e.conns = append(e.conns, conn)
			closers = append(closers, conn.Close)
		}
		if m.Server.Leader() == m.Server.MemberID() {
			c.leader = e
		} else {
			c.followers = append(c.followers, e)
		}
	}
	return c, nil
}

// etcdConfig has the defaults, with the addresses that a member needs.
func etcdConfig(name, dir string, peerPort, clientPort int, initial string) *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster = name, dir, initial
	peer := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", peerPort)}
	client := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", clientPort)}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.LogLevel = "fatal"
	c.QuotaBackendBytes = 16 << 30
	return c
}

func dialEtcd(ports ...int) (*clientv3.Client, error) {
	var endpoints []string
	for _, p := range ports {
		endpoints = append(endpoints, fmt.Sprintf("127.0.0.1:%d", p))
	}
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

// discard is an io.Writer for what gRPC logs.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

type etcdClient struct {
	conns []*clientv3.Client
	next  atomic.Uint32
}

func (c *etcdClient) kv() clientv3.KV { return c.conns[c.next.Add(1)%uint32(len(c.conns))] }

func (c *etcdClient) put(key, value []byte) error {
	_, err := c.kv().Put(context.Background(), string(key), string(value))
	return err
}

func (c *etcdClient) get(key []byte, f freshness) error {
	var opts []clientv3.OpOption
	if f == stale {
		opts = append(opts, clientv3.WithSerializable())
	}
	r, err := c.kv().Get(context.Background(), string(key), opts...)
	if err == nil && len(r.Kvs) != 1 {
		err = fmt.Errorf("key %q: %d results", key, len(r.Kvs))
	}
	return err
}

// batch takes the last value of a key that stands twice, as a batch of goleveldb does:
// a transaction of etcd's must not name one twice.
func (c *etcdClient) batch(keys, values [][]byte) error {
	last := make(map[string][]byte, len(keys))
	for i, k := range keys {
		last[string(k)] = values[i]
	}
	ops := make([]clientv3.Op, 0, len(last))
	for k, v := range last {
		ops = append(ops, clientv3.OpPut(k, string(v)))
	}
	_, err := c.kv().Txn(context.Background()).Then(ops...).Commit()
	return err
}

func (c *etcdClient) scan(first, limit []byte) (int, error) {
	r, err := c.kv().Get(context.Background(), string(first), clientv3.WithRange(string(limit)))
	if err != nil {
		return 0, err
	}
	return len(r.Kvs), nil
}
