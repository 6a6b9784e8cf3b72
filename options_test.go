package skiff_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/syndtr/goleveldb/leveldb/comparer"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff"
)

const ownAddress = "/ip4/10.0.0.1/tcp/9490"

// wrongOptions are changes to right ones, and the field that is to blame.
var wrongOptions = []struct {
	name   string
	field  string
	change func(*skiff.Options)
}{
	{"no directory", "Dir", func(o *skiff.Options) { o.Dir = "" }},
	{"directory and memory", "InMemory", func(o *skiff.Options) { o.InMemory = true }},
	{"unknown log store", "LogStore", func(o *skiff.Options) { o.LogStore = "paper" }},

	{"comparer", "StateOptions.Comparer", state(opt.Options{Comparer: comparer.DefaultComparer})},
	{"error if exist", "StateOptions.ErrorIfExist", state(opt.Options{ErrorIfExist: true})},
	{"error if missing", "StateOptions.ErrorIfMissing", state(opt.Options{ErrorIfMissing: true})},
	{"read-only state", "StateOptions.ReadOnly", state(opt.Options{ReadOnly: true})},
	{"no sync", "StateOptions.NoSync", state(opt.Options{NoSync: true})},

	{"listen on nonsense", "Listen", func(o *skiff.Options) { o.Listen = "localhost:9490" }},
	{"peer is nonsense", "Peers[1]", peers("/ip4/10.0.0.2/tcp/9490", "node-2")},
	{"peer with port 0", "Peers[0]", peers("/ip4/10.0.0.2/tcp/0")},
	{"peer on every interface", "Peers[0]", peers("/ip4/0.0.0.0/tcp/9490")},
	{"peer is the node itself", "Peers[0]", peers(ownAddress)},
	{"peer stands twice", "Peers[1]", peers("/ip4/10.0.0.2/tcp/9490", "/ip4/10.0.0.2/tcp/9490")},
	{"peer stands twice, spelled differently", "Peers[1]", peers("/dns4/node/tcp/9490", "/dns4/NODE/tcp/9490")},

	{"join is nonsense", "Join[0]", func(o *skiff.Options) { o.Join = []string{"node-2"} }},
	{"joins itself", "Join[0]", func(o *skiff.Options) { o.Join = []string{ownAddress} }},
	{"founds and joins", "Peers", func(o *skiff.Options) {
		o.Peers, o.Join = []string{"/ip4/10.0.0.2/tcp/9490"}, []string{"/ip4/10.0.0.3/tcp/9490"}
	}},
	{"founds and stands by", "Peers", func(o *skiff.Options) { o.Peers, o.Standby = []string{"/ip4/10.0.0.2/tcp/9490"}, true }},
	{"does not vote where it founds", "Nonvoter", func(o *skiff.Options) { o.Nonvoter = true }},
	{"does not vote, on standby", "Nonvoter", func(o *skiff.Options) { o.Nonvoter, o.Standby = true, true }},
	{"moved from nowhere", "MovedFrom", func(o *skiff.Options) { o.MovedFrom = "node-1" }},
	{"negative consensus", "MinConsensus", func(o *skiff.Options) { o.MinConsensus = -1 }},
	{"connections closed at once", "InactivityTimeout", func(o *skiff.Options) { o.InactivityTimeout = time.Millisecond }},

	{"heartbeat too short", "HeartbeatTimeout", func(o *skiff.Options) { o.HeartbeatTimeout = time.Millisecond }},
	{"negative heartbeat", "HeartbeatTimeout", func(o *skiff.Options) { o.HeartbeatTimeout = -time.Second }},
	{"election too short", "ElectionTimeout", func(o *skiff.Options) { o.ElectionTimeout = time.Millisecond }},
	{"election below heartbeat", "ElectionTimeout", func(o *skiff.Options) { o.ElectionTimeout = 400 * time.Millisecond }},
	{"lease too short", "LeaderLease", func(o *skiff.Options) { o.LeaderLease = time.Millisecond }},
	{"lease above heartbeat", "LeaderLease", func(o *skiff.Options) { o.LeaderLease = time.Second }},
	{"RPC timeout too short", "RPCTimeout", func(o *skiff.Options) { o.RPCTimeout = 1 }},
	{"request timeout too short", "RequestTimeout", func(o *skiff.Options) { o.RequestTimeout = 10 }}, // seconds, he thought
	{"snapshot interval too short", "SnapshotInterval", func(o *skiff.Options) { o.SnapshotInterval = -1 }},
	{"retry wait too short", "RetryWait", func(o *skiff.Options) { o.RetryWait = time.Microsecond }},
	{"negative retry count", "RetryCount", func(o *skiff.Options) { o.RetryCount = -1 }},

	{"too many entries", "MaxAppendEntries", func(o *skiff.Options) { o.MaxAppendEntries = 1025 }},
	{"negative entries", "MaxAppendEntries", func(o *skiff.Options) { o.MaxAppendEntries = -1 }},
	{"batch too large", "MaxBatchSize", func(o *skiff.Options) { o.MaxBatchSize = 32<<20 + 1 }},
	{"value larger than a batch", "MaxValueSize", func(o *skiff.Options) { o.MaxValueSize = 16<<20 + 1 }},
	{"key larger than a batch", "MaxKeySize", func(o *skiff.Options) { o.MaxKeySize = 16<<20 + 1 }},
	{"read set too large", "MaxReadSet", func(o *skiff.Options) { o.MaxReadSet = 32<<20 + 1 }},
	{"negative read set", "MaxReadSet", func(o *skiff.Options) { o.MaxReadSet = -1 }},
	{"negative key", "MaxKeySize", func(o *skiff.Options) { o.MaxKeySize = -1 }},
	{"chunk too large", "InstallChunkSize", func(o *skiff.Options) { o.InstallChunkSize = 16<<20 + 1 }},
	{"install rate too low", "InstallRate", func(o *skiff.Options) { o.InstallRate = 1 }},
	{"negative install rate", "InstallRate", func(o *skiff.Options) { o.InstallRate = -1 }},
	{"negative growth", "SnapshotBytes", func(o *skiff.Options) { o.SnapshotBytes = -1 }},
	{"negative trailing bytes", "TrailingBytes", func(o *skiff.Options) { o.TrailingBytes = -1 }},
	{"negative chunk", "InstallChunkSize", func(o *skiff.Options) { o.InstallChunkSize = -1 }},
}

func state(s opt.Options) func(*skiff.Options) {
	return func(o *skiff.Options) { o.StateOptions = &s }
}

func peers(addresses ...string) func(*skiff.Options) {
	return func(o *skiff.Options) { o.Peers = addresses }
}

// TestWrongOptions: each is refused by name, before anything is opened.
func TestWrongOptions(t *testing.T) {
	for _, wrong := range wrongOptions {
		t.Run(wrong.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			o := skiff.Options{Dir: dir, Transport: untouched{t}}
			wrong.change(&o)
			n, err := skiff.New(ownAddress, o)
			if n != nil {
				t.Error("there is a node")
			}
			wantOptionError(t, err, wrong.field)
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the data directory: %v", err)
			}
		})
	}
}

func wantOptionError(t *testing.T, err error, field string) {
	t.Helper()
	var e *skiff.OptionError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an OptionError", err)
	}
	if e.Field != field || e.Reason == "" || !strings.Contains(err.Error(), field) {
		t.Errorf("got %v, want one for %s", err, field)
	}
}

// untouched is a transport that nobody may use.
type untouched struct{ t *testing.T }

func (u untouched) Listen(context.Context, multiaddr.Multiaddr) (net.Listener, error) {
	u.t.Error("it listens")
	return nil, errors.ErrUnsupported
}

func (u untouched) Dial(context.Context, multiaddr.Multiaddr) (net.Conn, error) {
	u.t.Error("it dials")
	return nil, errors.ErrUnsupported
}

var wrongAddresses = []string{
	"", "localhost:9490", "10.0.0.1", "/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/9490", "/ip4/10.0.0.300/tcp/9490",
	"/ip4/10.0.0.1/tcp/0", "/ip4/10.0.0.1/tcp/65536", "/ip4/0.0.0.0/tcp/9490", "/ip6/::/tcp/9490",
	"/dns4/two..dots/tcp/9490", "/unix", "/ip4/10.0.0.1/tcp/9490/http",
}

func TestWrongAddress(t *testing.T) {
	for _, address := range wrongAddresses {
		_, err := skiff.New(address, skiff.Options{InMemory: true, Transport: untouched{t}})
		wantOptionError(t, err, "address")

		_, err = skiff.Dial(testContext(t), []string{ownAddress, address}, skiff.DialOptions{Transport: untouched{t}})
		wantOptionError(t, err, "addresses[1]")
	}
}

// TestWrongDialOptions: those of a client, by the same rules.
func TestWrongDialOptions(t *testing.T) {
	for field, o := range map[string]skiff.DialOptions{
		"RPCTimeout":     {RPCTimeout: time.Millisecond},
		"RequestTimeout": {RequestTimeout: time.Millisecond},
		"RetryWait":      {RetryWait: time.Microsecond},
		"RetryCount":     {RetryCount: -1},
		"MaxKeySize":     {MaxKeySize: -1},
		"MaxValueSize":   {MaxValueSize: 17 << 20},
		"MaxBatchSize":   {MaxBatchSize: 33 << 20},
		"MaxReadSet":     {MaxReadSet: 33 << 20},
	} {
		o.Transport = untouched{t}
		db, err := skiff.Dial(testContext(t), []string{ownAddress}, o)
		if db != nil {
			t.Errorf("%s: there is a database", field)
		}
		wantOptionError(t, err, field)
	}
	_, err := skiff.Dial(testContext(t), nil, skiff.DialOptions{Transport: untouched{t}})
	wantOptionError(t, err, "addresses")
}

// TestOptionsAtTheirLimits: what is not wrong is taken.
func TestOptionsAtTheirLimits(t *testing.T) {
	for name, change := range map[string]func(*skiff.Options){
		"only a directory":   func(o *skiff.Options) { o.Dir = filepath.Join(t.TempDir(), "data") },
		"only memory":        inMemory,
		"wal":                func(o *skiff.Options) { o.InMemory, o.LogStore = true, skiff.LogStoreWAL },
		"listen on any host": func(o *skiff.Options) { o.InMemory, o.Listen = true, "/ip4/0.0.0.0/tcp/0" },
		"shortest times": func(o *skiff.Options) {
			o.InMemory = true
			for _, d := range []*time.Duration{
				&o.HeartbeatTimeout, &o.ElectionTimeout, &o.LeaderLease, &o.RPCTimeout, &o.RequestTimeout, &o.SnapshotInterval,
			} {
				*d = 10 * time.Millisecond
			}
			o.RetryWait = time.Millisecond
		},
		"largest sizes": func(o *skiff.Options) {
			o.InMemory, o.MaxAppendEntries, o.InstallChunkSize = true, 1024, 16<<20
			o.MaxKeySize, o.MaxValueSize, o.MaxBatchSize = 32<<20, 32<<20, 32<<20
			o.MaxReadSet = 32 << 20
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := skiff.Options{Transport: untouched{t}}
			change(&o)
			n, err := skiff.New(ownAddress, o)
			if err != nil {
				t.Fatal(err)
			}
			if n.Address() != ownAddress {
				t.Errorf("address %s", n.Address())
			}
			if o.Dir == "" {
				return
			}
			if _, err := os.Stat(o.Dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("New alone has made the data directory: %v", err)
			}
		})
	}
}

// TestDefaultLimits: 64 KiB for a key, 8 MiB for a value, 16 MiB for a batch.
func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		db := newCluster(t, 1, inMemory).node(0).DB()
		fits := db.Put(make([]byte, 64<<10), make([]byte, 8<<20), nil)
		if fits != nil {
			t.Error(fits)
		}
		wantTooLarge(t, "key", db.Put(make([]byte, 64<<10+1), nil, nil), "MaxKeySize")
		wantTooLarge(t, "value", db.Put(nil, make([]byte, 8<<20+1), nil), "MaxValueSize")
		tr := mustOpen(t, db)
		for key := range 2 {
			if err := tr.Put([]byte{byte(key)}, make([]byte, 8<<20), nil); err != nil {
				t.Fatal(err)
			}
		}
		wantTooLarge(t, "batch", tr.Commit(), "MaxBatchSize")
	})
}

// TestAddressIsCanonical: two spellings are one member.
func TestAddressIsCanonical(t *testing.T) {
	for spelled, canonical := range map[string]string{
		"/dns4/Node.Example/tcp/9490":             "/dns4/node.example/tcp/9490",
		"/ip6/2001:0db8:0:0:0:0:0:1/tcp/9490":     "/ip6/2001:db8::1/tcp/9490",
		"/unix/run/skiff/../skiff/a.sock":         "/unix/run/skiff/a.sock",
		"/ip4/10.0.0.1/tcp/9490":                  "/ip4/10.0.0.1/tcp/9490",
		"/dns/NODE-1.internal.example./tcp/09490": "/dns/node-1.internal.example./tcp/9490",
	} {
		n, err := skiff.New(spelled, skiff.Options{InMemory: true})
		if err != nil {
			t.Errorf("%s: %v", spelled, err)
		} else if n.Address() != canonical {
			t.Errorf("%s became %s, want %s", spelled, n.Address(), canonical)
		}
	}
}
