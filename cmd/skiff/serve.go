package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
hands over leadership and stops. A second signal ends it at once, which is safe too.

All nodes of a new cluster are given each other as --peer; from then on the data directory
knows the members. The log goes to standard error, and so does one line that begins with
"ready" as soon as there is a leader with a majority.`,
		Example: `  skiff serve /ip4/127.0.0.1/tcp/9490 --dir data/n0
  skiff serve /dns4/a.example/tcp/9490 --listen /ip4/0.0.0.0/tcp/9490 --dir /var/lib/skiff \
    --peer /dns4/b.example/tcp/9490 --peer /dns4/c.example/tcp/9490`,
		Args: cobra.ExactArgs(1),
	}
	var o skiff.Options
	logStore := choice{string(skiff.LogStoreBolt), []string{string(skiff.LogStoreBolt), string(skiff.LogStoreWAL)}}
	logLevel := choice{"info", []string{"debug", "info", "warn", "error"}}
	flags := cmd.Flags()
	flags.StringVar(&o.Dir, "dir", "", "data `directory`")
	flags.BoolVar(&o.InMemory, "in-memory", false, "keep nothing on disk: after a stop the node gets everything from the others")
	flags.StringSliceVar(&o.Peers, "peer", nil, "`address` of another initial member, or several")
	flags.StringVar(&o.Listen, "listen", "", "`address` to listen on (default ADDRESS)")
	addChoice(cmd, flags, &logStore, "log-store", "", "store under the raft log of a new data directory")
	addChoice(cmd, flags, &logLevel, "log-level", "", "what to log")
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
		return serve(cmd.Context(), e, args[0], o, h)
	}
	return cmd
}

// serve runs a node until ctx ends or it fails.
func serve(ctx context.Context, e *env, address string, o skiff.Options, h *httpOptions) (err error) {
	node, err := skiff.New(address, o)
	if err != nil {
		return err
	}
	server, err := h.listen(e, node)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	switch err := node.Start(ctx); {
	case err != nil && ctx.Err() != nil:
		return nil // told to end before it had begun
	case err != nil:
		return err
	}
	err = watch(ctx, e, node)
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, node.Stop(stopCtx))
}

// watch announces that the node is ready, and returns when ctx ends, or with an
// error when the node cannot go on.
func watch(ctx context.Context, e *env, node *skiff.Node) error {
	switch err := node.WaitReady(ctx); {
	case err == nil:
		fmt.Fprintf(e.stderr, "ready %s\n", node.Address())
	case ctx.Err() == nil:
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-node.Done():
		return node.Err()
	}
}
