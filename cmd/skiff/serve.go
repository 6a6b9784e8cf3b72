package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

const stopTimeout = 10 * time.Second

func newServeCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve ADDRESS",
		Short: "Run a node",
		Long: `Run a node that others reach at ADDRESS, a multiaddr, until SIGINT or SIGTERM; it then
hands over leadership and stops. A second signal ends it at once, which is safe too. It ends
by itself when the node is removed from its cluster. When a disk that is full or broken stops
the node, it is started again until that works; a line that begins with "failed" says so.

All nodes of a new cluster are given each other as --peer; from then on the data directory
knows the members. A node that comes later is given members to --join, or waits as --standby,
which it says in a line that begins with "waiting", until "skiff join" names it. A node with its data directory at a new ADDRESS is told the one
before as --moved-from, once. The log goes to standard error, and so does one line that begins with
"ready" as soon as there is a leader with a majority.`,
		Example: `  skiff serve /ip4/127.0.0.1/tcp/9490 --dir data/n0
  skiff serve /dns4/a.example/tcp/9490 --listen /ip4/0.0.0.0/tcp/9490 --dir /var/lib/skiff \
    --peer /dns4/b.example/tcp/9490 --peer /dns4/c.example/tcp/9490`,
		Args: cobra.ExactArgs(1),
	}
	var o skiff.Options
	var events bool
	logStore := choice{words: []string{string(skiff.LogStoreBolt), string(skiff.LogStoreWAL)}}
	logLevel := choice{"info", []string{"debug", "info", "warn", "error"}}
	flags := cmd.Flags()
	flags.StringVar(&o.Dir, "dir", "", "data `directory`")
	flags.BoolVar(&o.InMemory, "in-memory", false, "keep nothing on disk: after a stop the node gets everything from the others")
	flags.StringSliceVar(&o.Peers, "peer", nil, "`address` of another initial member, or several")
	flags.StringSliceVar(&o.Join, "join", nil, "`address` of a member of the cluster to join, or several")
	flags.BoolVar(&o.Standby, "standby", false, "wait until a member takes the node in")
	flags.BoolVar(&o.Nonvoter, "nonvoter", false, "with --join: become a read replica, which does not vote")
	flags.BoolVar(&o.LeaveOnStop, "leave-on-stop", false, "leave the cluster before stopping; --join brings the node back")
	flags.StringVar(&o.MovedFrom, "moved-from", "", "`address` that the data directory was used with so far")
	flags.IntVar(&o.MinConsensus, "min-consensus", 0, "voters that have to be reachable until the node is ready (default a majority)")
	flags.DurationVar(&o.InactivityTimeout, "inactivity-timeout", 0, "idleness after which a connection is closed (default 30s)")
	flags.StringVar(&o.Listen, "listen", "", "`address` to listen on (default ADDRESS)")
	addChoice(cmd, flags, &logStore, "log-store", "", "store under the raft log of a new data directory (default wal)")
	addChoice(cmd, flags, &logLevel, "log-level", "", "what to log")
	flags.BoolVar(&events, "events", false, "print what happens as JSON lines to standard output")
	flags.DurationVar(&o.HeartbeatTimeout, "heartbeat-timeout", 0, "silence of the leader before an election (default 500ms)")
	flags.DurationVar(&o.ElectionTimeout, "election-timeout", 0, "wait of a candidate for votes (default --heartbeat-timeout)")
	flags.DurationVar(&o.RPCTimeout, "rpc-timeout", 0, "bound of a request between nodes (default 2s)")
	flags.Uint64Var(&o.SnapshotThreshold, "snapshot-threshold", 0, "log entries before the log is truncated (default 8192)")
	flags.Int64Var(&o.SnapshotBytes, "snapshot-bytes", 0, "growth of the log in bytes before it is truncated (default 64 MiB)")
	flags.Uint64Var(&o.TrailingLogs, "trailing-logs", 0, "log entries kept behind a snapshot (default 10240)")
	flags.Int64Var(&o.TrailingBytes, "trailing-bytes", 0, "bound of these entries in bytes (default 64 MiB)")
	flags.Int64Var(&o.InstallRate, "install-rate", 0, "bytes per second at which states are sent (default 64 MiB)")
	h := addHTTPFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var level slog.Level
		if err := level.UnmarshalText([]byte(logLevel.value)); err != nil {
			return err
		}
		o.LogStore = skiff.LogStore(logStore.value)
		o.Logger = slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
		if events {
			signal.Ignore(syscall.SIGPIPE) // the node goes on when nobody reads them any more
		}
		return keepServing(cmd.Context(), e, args[0], func(ctx context.Context) (bool, error) {
			return serve(ctx, e, args[0], o, h, events)
		})
	}
	return cmd
}

// serve runs a node until ctx ends or it fails, and reports whether it has started.
func serve(ctx context.Context, e *env, address string, o skiff.Options, h *httpOptions, events bool) (started bool, err error) {
	node, err := skiff.New(address, o)
	if err != nil {
		return false, err
	}
	server, err := h.listen(e, node)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	if events {
		var printer sync.WaitGroup
		told := node.Subscribe(eventBuffer)
		printer.Go(func() { printEvents(e, told) })
		defer printer.Wait()
	}
	switch err := node.Start(ctx); {
	case err != nil && ctx.Err() != nil:
		return false, nil // told to end before it had begun
	case err != nil:
		return false, err
	}
	if o.Standby {
		fmt.Fprintf(e.stderr, "waiting %s\n", node.Address())
	}
	err = watch(ctx, e, node)
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return true, errors.Join(err, node.Stop(stopCtx))
}

// watch announces that the node is ready, and returns when ctx ends or the node was
// removed from its cluster, or with an error when it cannot go on.
func watch(ctx context.Context, e *env, node *skiff.Node) error {
	err := node.WaitReady(ctx)
	if err == nil {
		fmt.Fprintf(e.stderr, "ready %s\n", node.Address())
		select {
		case <-ctx.Done():
		case <-node.Done():
			err = node.Err()
		}
	}
	removed := errors.Is(err, skiff.ErrRemoved)
	if removed {
		fmt.Fprintf(e.stderr, "removed %s\n", node.Address())
	}
	if removed || ctx.Err() != nil {
		err = nil // what it was told to
	}
	return err
}
