// Package skiffprom tells Prometheus of a Skiff node.
//
//	registry := prometheus.NewRegistry()
//	registry.MustRegister(skiffprom.New(node))
//	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
//
// It is a package of its own so that programs which do without it do not link
// Prometheus' client. It stands on [skiff.Node.Stats], whose documentation says what
// exactly each figure is.
//
// All metrics have the label node, the node's address, so that several nodes can be
// in one registry.
//
//	skiff_build_info{version,go_version}       1
//	skiff_state{state}                         1 for what the node is doing, else 0: one for each of skiff.States
//	skiff_ready                                1 if the cluster can be used from this node, else 0
//	skiff_uptime_seconds                       since the node was started
//	skiff_term                                 raft's current term
//	skiff_members{voter}                       members of the cluster, voter="true" or "false"
//	skiff_log_last_index                       the last entry in the log
//	skiff_log_commit_index                     the last entry known to be at a majority
//	skiff_applied_index                        the last entry in the state
//	skiff_snapshot_index                       the last entry covered by a snapshot
//	skiff_log_size_bytes                       the files of the log
//	skiff_state_size_bytes                     the tables of the state
//	skiff_writes_total{outcome}                writes of the callers at this node: ok, conflict, not_applied, unknown
//	skiff_reads_total{consistency,outcome}     their reads: linearizable, lease, stale; ok, failed
//	skiff_write_duration_seconds{quantile}     a summary of the writes that ended ok or in a conflict
//	skiff_read_duration_seconds{quantile}      a summary of the reads that ended ok
//	skiff_connections                          open connections
//	skiff_install_transferred_bytes{peer,direction}  of a state being sent or received (direction="sending", "receiving")
//	skiff_install_size_bytes{peer,direction}         about what it will be
//
// The quantiles, 0.5 and 0.99, are of about the last minute, and NaN if there was
// nothing in it. A counter begins at 0 when the node is made. Of a node that is not
// running there are only the build, the state, readiness, uptime and the counters.
//
// A few alerts to begin with:
//
//	no leader:         max(skiff_ready) == 0
//	a node is behind:  scalar(max(skiff_log_commit_index)) - skiff_applied_index > 10000
//	writes fail:       sum(rate(skiff_writes_total{outcome=~"not_applied|unknown"}[5m])) > 0
//	a node has failed: skiff_state{state="failed"} == 1
package skiffprom

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skiffdb/skiff"
)

// New returns a collector for a node, in any phase of its life.
func New(node *skiff.Node) prometheus.Collector {
	return &collector{node, newDescriptions(node.Address())}
}

// collector asks the node at each scrape. It is safe for concurrent use.
type collector struct {
	node *skiff.Node
	*descriptions
}

type descriptions struct {
	build, state, ready, uptime, term, members *prometheus.Desc
	last, commit, applied, snapshot            *prometheus.Desc
	logSize, stateSize                         *prometheus.Desc
	writes, reads, writeTime, readTime         *prometheus.Desc
	connections, installed, installSize        *prometheus.Desc

	all []*prometheus.Desc
}

func newDescriptions(node string) *descriptions {
	d := &descriptions{}
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		desc := prometheus.NewDesc("skiff_"+name, help, labels, prometheus.Labels{"node": node})
		d.all = append(d.all, desc)
		return desc
	}
	d.build = describe("build_info", "Versions of Skiff and Go; the value is 1.", "version", "go_version")
	d.state = describe("state", "1 for what the node is doing, otherwise 0.", "state")
	d.ready = describe("ready", "1 if the cluster can be used from this node, otherwise 0.")
	d.uptime = describe("uptime_seconds", "Time since the node was started.")
	d.term = describe("term", "Raft's current term.")
	d.members = describe("members", "Members of the cluster.", "voter")
	d.last = describe("log_last_index", "Index of the last entry in the log.")
	d.commit = describe("log_commit_index", "Index of the last entry known to be at a majority.")
	d.applied = describe("applied_index", "Index of the last entry in the state.")
	d.snapshot = describe("snapshot_index", "Index of the last entry covered by a snapshot.")
	d.logSize = describe("log_size_bytes", "Size of the files of the log.")
	d.stateSize = describe("state_size_bytes", "Size of the tables of the state.")
	d.writes = describe("writes_total", "Writes of the callers at this node.", "outcome")
	d.reads = describe("reads_total", "Reads of the callers at this node.", "consistency", "outcome")
	d.writeTime = describe("write_duration_seconds", "How long writes took that ended ok or in a conflict; quantiles of the last minute.")
	d.readTime = describe("read_duration_seconds", "How long reads took that ended ok; quantiles of the last minute.")
	d.connections = describe("connections", "Open connections to or from nodes and clients.")
	d.installed = describe("install_transferred_bytes", "How much of a whole state has been sent or received.", "peer", "direction")
	d.installSize = describe("install_size_bytes", "About how large the state is that is being sent or received.", "peer", "direction")
	return d
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.node.Stats()
	c.collectLife(ch, s)
	c.collectCounts(ch, s)
	if s.State != skiff.StateStopped && s.State != skiff.StateFailed && s.State != skiff.StateRemoved {
		c.collectData(ch, s)
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (c *collector) collectLife(ch chan<- prometheus.Metric, s skiff.Stats) {
	gauge(ch, c.build, 1, s.Version, s.GoVersion)
	for _, state := range skiff.States() {
		gauge(ch, c.state, number(s.State == state), string(state))
	}
	gauge(ch, c.ready, number(s.Ready))
	gauge(ch, c.uptime, s.Uptime.Seconds())
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *collector) collectCounts(ch chan<- prometheus.Metric, s skiff.Stats) {
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	counter(c.writes, s.Writes.OK, "ok")
	counter(c.writes, s.Writes.Conflict, "conflict")
	counter(c.writes, s.Writes.NotApplied, "not_applied")
	counter(c.writes, s.Writes.Unknown, "unknown")
	for consistency, counts := range map[skiff.Consistency]skiff.ReadCounts{
		skiff.Linearizable: s.Reads.Linearizable, skiff.Lease: s.Reads.Lease, skiff.Stale: s.Reads.Stale,
	} {
		counter(c.reads, counts.OK, consistency.String(), "ok")
		counter(c.reads, counts.Failed, consistency.String(), "failed")
	}
	summary := func(d *prometheus.Desc, count uint64, l skiff.Latency) {
		quantiles := map[float64]float64{0.5: seconds(l.P50), 0.99: seconds(l.P99)}
		ch <- prometheus.MustNewConstSummary(d, count, l.Sum.Seconds(), quantiles)
	}
	summary(c.writeTime, s.Writes.OK+s.Writes.Conflict, s.Writes.Latency)
	summary(c.readTime, s.Reads.Total().OK, s.Reads.Latency)
}

// seconds of a quantile.
func seconds(d time.Duration) float64 {
	if d == 0 {
		return math.NaN()
	}
	return d.Seconds()
}

func (c *collector) collectData(ch chan<- prometheus.Metric, s skiff.Stats) {
	gauge(ch, c.term, float64(s.Term))
	members := map[bool]int{}
	for _, m := range s.Peers {
		members[m.Voter]++
	}
	for _, voter := range []bool{true, false} {
		gauge(ch, c.members, float64(members[voter]), strconv.FormatBool(voter))
	}
	gauge(ch, c.last, float64(s.LastIndex))
	gauge(ch, c.commit, float64(s.CommitIndex))
	gauge(ch, c.applied, float64(s.AppliedIndex))
	gauge(ch, c.snapshot, float64(s.SnapshotIndex))
	gauge(ch, c.logSize, float64(s.LogSize))
	gauge(ch, c.stateSize, float64(s.StateSize))
	gauge(ch, c.connections, float64(s.Connections))
	c.collectInstalls(ch, s.Installs)
}

// collectInstalls tells of one transfer for each peer and direction, the latest, lest
// two metrics are the same.
func (c *collector) collectInstalls(ch chan<- prometheus.Metric, installs []skiff.Install) {
	type end struct{ peer, direction string }
	latest := map[end]skiff.Install{}
	for _, in := range installs {
		direction := "sending"
		if in.Receiving {
			direction = "receiving"
		}
		latest[end{in.Peer, direction}] = in
	}
	for at, in := range latest {
		gauge(ch, c.installed, float64(in.Bytes), at.peer, at.direction)
		gauge(ch, c.installSize, float64(in.Total), at.peer, at.direction)
	}
}
