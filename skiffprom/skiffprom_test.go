package skiffprom

import (
	"context"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/skiffdb/skiff"
)

func startNode(t *testing.T) *skiff.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	node, err := skiff.New("/unix/"+filepath.Join(t.TempDir(), "node"), skiff.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := node.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return node
}

// gather returns all metrics by name and labels, after the linter has seen them.
func gather(t *testing.T, collectors ...prometheus.Collector) map[string]*dto.Metric {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors...)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string]*dto.Metric{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				if l.GetName() != "node" {
					name += " " + l.GetValue()
				}
			}
			metrics[name] = m
		}
	}
	return metrics
}

func value(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetSummary() != nil:
		return float64(m.GetSummary().GetSampleCount())
	}
	return m.GetGauge().GetValue()
}

func TestMetricsAreTheStats(t *testing.T) {
	node := startNode(t)
	db := node.DB()
	for range 3 {
		if err := db.Put([]byte("k"), []byte("v"), nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := db.WithConsistency(skiff.Stale).Get([]byte("k"), nil); err != nil {
			t.Fatal(err)
		}
	}
	got, s := gather(t, New(node)), node.Stats()
	for name, want := range map[string]float64{
		"skiff_state leader": 1, "skiff_state follower": 0, "skiff_ready": 1,
		"skiff_term": float64(s.Term), "skiff_members true": 1, "skiff_members false": 0,
		"skiff_log_last_index": float64(s.LastIndex), "skiff_log_commit_index": float64(s.CommitIndex),
		"skiff_applied_index": float64(s.AppliedIndex), "skiff_snapshot_index": float64(s.SnapshotIndex),
		"skiff_log_size_bytes": float64(s.LogSize), "skiff_state_size_bytes": float64(s.StateSize),
		"skiff_writes_total ok": 3, "skiff_writes_total unknown": 0,
		"skiff_reads_total stale ok": 2, "skiff_reads_total lease failed": 0,
		"skiff_write_duration_seconds": 3, "skiff_read_duration_seconds": 2,
		"skiff_connections": float64(s.Connections),
	} {
		m := got[name]
		if m == nil || value(m) != want {
			t.Errorf("%s: %v, want %v; there are %v", name, m, want, slices.Sorted(maps.Keys(got)))
		}
	}
	writes := got["skiff_write_duration_seconds"].GetSummary()
	for _, q := range writes.Quantile {
		if seconds := q.GetValue(); !(seconds > 0 && seconds < 60) {
			t.Errorf("quantile %v of writes: %v", q.GetQuantile(), seconds)
		}
	}
	if writes.GetSampleSum() != s.Writes.Latency.Sum.Seconds() {
		t.Errorf("sum of the writes: %v, want %v", writes.GetSampleSum(), s.Writes.Latency.Sum)
	}
}

// Several nodes fit into one registry, and those that do not run have less to tell.
func TestNodesThatDoNotRun(t *testing.T) {
	node := startNode(t)
	other, err := skiff.New("/ip4/127.0.0.1/tcp/9490", skiff.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	gather(t, New(node), New(other))

	got := gather(t, New(other))
	if value(got["skiff_state stopped"]) != 1 || value(got["skiff_ready"]) != 0 || got["skiff_log_last_index"] != nil {
		t.Errorf("%v", slices.Sorted(maps.Keys(got)))
	}
}

// Two transfers with one peer, the earlier of which is about to end, are no
// contradiction.
func TestInstalls(t *testing.T) {
	node := startNode(t)
	c := New(node).(*collector)
	ch := make(chan prometheus.Metric, 10)
	c.collectInstalls(ch, []skiff.Install{
		{Peer: "a", Bytes: 5, Total: 10}, {Peer: "a", Bytes: 1, Total: 12}, {Peer: "a", Receiving: true, Bytes: 7, Total: 10},
	})
	close(ch)
	got := map[string]float64{}
	for m := range ch {
		var out dto.Metric
		if err := m.Write(&out); err != nil {
			t.Fatal(err)
		}
		name := "of"
		if m.Desc() == c.installSize {
			name = "size"
		}
		for _, l := range out.Label {
			if l.GetName() != "node" {
				name += " " + l.GetValue()
			}
		}
		got[name] = value(&out)
	}
	want := map[string]float64{"of sending a": 1, "size sending a": 12, "of receiving a": 7, "size receiving a": 10}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Whoever does not want Prometheus does not link it.
func TestNobodyElseImportsPrometheus(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("..", func(path string, f fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case f.IsDir() && slices.Contains([]string{"../skiffprom", "../cmd", "../examples"}, filepath.ToSlash(path)):
			return filepath.SkipDir
		case f.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		seen++
		for _, i := range file.Imports {
			if strings.HasPrefix(i.Path.Value, `"github.com/prometheus/`) || strings.HasSuffix(i.Path.Value, `/skiffprom"`) {
				t.Errorf("%s imports %s", path, i.Path.Value)
			}
		}
		return nil
	})
	if err != nil || seen < 50 {
		t.Fatalf("looked at %d files: %v", seen, err)
	}
}
