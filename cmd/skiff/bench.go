package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	operations []string
	clients    []int
	duration   time.Duration
	count      int64
	workload   workload
}

func newBenchCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure operations at the leader and at a follower",
		Long: `Measure operations on a running cluster, at the leader and at a follower, with some numbers
of clients that work at the same time over one connection.

The keys begin with --prefix and are deleted at the end: point it where nothing else is.`,
		Example: `  skiff bench
  skiff bench --operations put,get --clients 1,16 --duration 10s
  skiff bench --count 1000 --value-size 4096 -o json`,
		Args: cobra.NoArgs,
	}
	var o benchOptions
	flags := cmd.Flags()
	flags.StringSliceVar(&o.operations, "operations", workloadOperations(), "`what` to measure")
	flags.IntSliceVar(&o.clients, "clients", []int{1, 64, 256}, "`numbers` of clients")
	flags.DurationVar(&o.duration, "duration", 3*time.Second, "how long to measure for each row")
	flags.Int64Var(&o.count, "count", 0, "operations to measure for each row, in place of --duration")
	flags.IntVar(&o.workload.keys, "keys", 10000, "number of keys")
	flags.IntVar(&o.workload.valueSize, "value-size", 100, "bytes in a value")
	flags.IntVar(&o.workload.batch, "batch", 100, "puts in a batch")
	flags.IntVar(&o.workload.scan, "scan", 100, "records in a scan")
	flags.StringVar(&o.workload.prefix, "prefix", "skiff-bench/", "what keys begin with")
	c := newReader(e, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := outputFormat(cmd, "table", "json", "jsonl")
		if err != nil {
			return err
		}
		if err := o.validate(); err != nil {
			return err
		}
		stats, err := c.clusterStats(cmd.Context())
		if err != nil {
			return err
		}
		rows, err := c.bench(cmd.Context(), benchTargets(stats), &o)
		return errors.Join(printBench(e, format, rows), err)
	}
	return cmd
}

func (o *benchOptions) validate() error {
	for _, operation := range o.operations {
		if !slices.Contains(workloadOperations(), operation) {
			return usagef("--operations: %q is not one of %q", operation, workloadOperations())
		}
	}
	for name, n := range map[string]int{
		"clients": slices.Min(append(o.clients, 1)), "duration": int(o.duration), "keys": o.workload.keys,
		"batch": o.workload.batch, "scan": o.workload.scan, "count": int(o.count) + 1, "value-size": o.workload.valueSize + 1,
	} {
		if n < 1 {
			return usagef("--%s is too small", name)
		}
	}
	return nil
}

// benchTarget is a node to measure at.
type benchTarget struct{ role, address string }

// benchTargets returns the leader and, if there is one, a follower.
func benchTargets(stats skiff.Stats) []benchTarget {
	targets := []benchTarget{{"leader", stats.Leader}}
	for _, p := range stats.Peers {
		if p.Voter && p.Address != stats.Leader {
			return append(targets, benchTarget{"follower", p.Address})
		}
	}
	return targets
}

// benchRow is one measurement.
type benchRow struct {
	Operation string  `json:"operation"`
	At        string  `json:"at"`
	Address   string  `json:"address"`
	Clients   int     `json:"clients"`
	Count     int64   `json:"count"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// bench fills the keys, measures all rows, and deletes the keys. It returns the rows
// that it has even if it fails.
func (c *client) bench(ctx context.Context, targets []benchTarget, o *benchOptions) (rows []benchRow, err error) {
	err = c.session(ctx, func(db *skiff.DB) (err error) {
		defer func() { err = errors.Join(err, o.workload.clear(context.WithoutCancel(ctx), db)) }()
		if err := o.workload.fill(ctx, db); err != nil {
			return err
		}
		for _, target := range targets {
			err := c.at(ctx, target.address, func(db *skiff.DB) error {
				measured, err := o.measureAt(ctx, db, target)
				rows = append(rows, measured...)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s %s: %w", target.role, target.address, err)
			}
		}
		return nil
	})
	return rows, err
}

// measureAt measures all operations with all numbers of clients at one node.
func (o *benchOptions) measureAt(ctx context.Context, db *skiff.DB, target benchTarget) ([]benchRow, error) {
	var rows []benchRow
	for _, name := range o.operations {
		for _, clients := range o.clients {
			m := measurement{operation: o.workload.operation(name, db), clients: clients, duration: o.duration, count: o.count}
			m.run(ctx)
			if m.err != nil {
				return rows, fmt.Errorf("%s with %d clients: %w", name, clients, m.err)
			}
			if err := ctx.Err(); err != nil {
				return rows, err
			}
			rows = append(rows, benchRow{
				Operation: name, At: target.role, Address: target.address, Clients: clients,
				Count: m.latencies.total, PerSecond: float64(m.latencies.total) / m.took.Seconds(),
				P50: milliseconds(m.latencies.quantile(0.50)), P99: milliseconds(m.latencies.quantile(0.99)),
			})
		}
	}
	return rows, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func printBench(e *env, format string, rows []benchRow) error {
	return printRows(e.stdout, format, rows, "OPERATION\tAT\tCLIENTS\tCOUNT\tPER SECOND\tP50 MS\tP99 MS", func(r benchRow) string {
		return fmt.Sprintf("%s\t%s\t%d\t%d\t%.0f\t%.2f\t%.2f", r.Operation, r.At, r.Clients, r.Count, r.PerSecond, r.P50, r.P99)
	})
}
