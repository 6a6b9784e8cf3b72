package skiff

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/wire"
)

// Who is let in for what, by a node that belongs to a cluster.
func TestWhoMayConnect(t *testing.T) {
	const self, other = "/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490"
	mine, foreign, none := wire.ClusterID{1}, wire.ClusterID{2}, wire.ClusterID{}
	admitted, older := wire.Identity{Incarnation: wire.Incarnation{1}}, wire.Identity{Incarnation: wire.Incarnation{2}}
	n := &network{
		self: self, clusterID: func() wire.ClusterID { return mine }, identity: func() wire.Identity { return admitted },
		replaced: func(address string, i wire.Identity) bool { return address == other && i != admitted },
	}
	raft, rpc, client, install := wire.KindRaft, wire.KindRPC, wire.KindClient, wire.KindInstall
	for _, test := range []struct {
		name  string
		kinds []wire.Kind
		p     wire.Preface
		want  wire.Refusal
	}{
		{"a member", []wire.Kind{raft, rpc, install}, wire.Preface{From: other, To: self, ClusterID: mine, Identity: admitted}, wire.Accepted},
		{"a client that knows the cluster, by another name", []wire.Kind{client}, wire.Preface{To: other, ClusterID: mine}, wire.Accepted},
		{"a client that does not yet", []wire.Kind{client}, wire.Preface{To: self}, wire.Accepted},
		{"who means another node", []wire.Kind{raft, rpc, install}, wire.Preface{From: other, To: other, ClusterID: mine, Identity: admitted}, wire.RefusedAddress},
		{"a member of another cluster", []wire.Kind{raft, rpc, client, install}, wire.Preface{From: other, To: self, ClusterID: foreign, Identity: admitted}, wire.RefusedCluster},
		{"who knows no cluster yet and asks", []wire.Kind{rpc}, wire.Preface{From: other, To: self, ClusterID: none, Identity: older}, wire.Accepted},
		{"who knows no cluster and leads one", []wire.Kind{raft, install}, wire.Preface{From: other, To: self, ClusterID: none, Identity: admitted}, wire.RefusedCluster},
		{"an older process at a member's address", []wire.Kind{raft, install}, wire.Preface{From: other, To: self, ClusterID: mine, Identity: older}, wire.RefusedStale},
		{"which asks what it is", []wire.Kind{rpc}, wire.Preface{From: other, To: self, ClusterID: mine, Identity: older}, wire.Accepted},
		{"for what is not known", []wire.Kind{9}, wire.Preface{From: other, To: self, ClusterID: mine}, wire.RefusedOther},
	} {
		for _, kind := range test.kinds {
			test.p.Kind = kind
			if got := n.judge(test.p, nil); got.Refused != test.want || got.ClusterID != mine {
				t.Errorf("%s, for %s: %+v, want %s", test.name, kind, got, test.want)
			}
		}
	}
	if got := n.judge(wire.Preface{}, wire.ErrVersion{Got: 9}); got.Refused != wire.RefusedVersion {
		t.Errorf("another version: %+v", got)
	}
}

// A leader sends nothing to an older process at a member's address, nor asks it for
// its vote; it does ask it who it is.
func TestAnOlderProcessIsNotDialled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const self, other = "/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490"
		admitted, older := wire.Identity{Incarnation: wire.Incarnation{1}}, wire.Identity{Incarnation: wire.Incarnation{2}}
		transport := memnet.New()
		l, err := transport.Host(other).Listen(context.Background(), multiaddr.StringCast(other))
		if err != nil {
			t.Fatal(err)
		}
		there := newNetwork(other, l, time.Minute, slog.New(slog.DiscardHandler))
		there.clusterID = func() wire.ClusterID { return wire.ClusterID{1} }
		there.identity = func() wire.Identity { return older }
		there.rpc = func() wire.Handler { return nil }
		there.install = func(string, net.Conn) error { return nil }
		there.serve()
		defer there.close()
		d := &dialer{
			self: self, transport: transport.Host(self), timeout: time.Minute, clusterID: there.clusterID, links: newLinks(func(Event) {}),
			replaced: func(address string, i wire.Identity) bool { return address == other && i != admitted },
		}
		for kind, want := range map[wire.Kind]error{wire.KindRaft: ErrRefused, wire.KindInstall: ErrRefused, wire.KindRPC: nil} {
			c, err := d.dial(context.Background(), other, kind)
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s: %v, want %v", kind, err, want)
			}
			if err == nil {
				_ = c.Close()
			}
		}
	})
}
