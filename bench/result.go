package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// results is one run.
type results struct {
	When      time.Time
	Machine   machine
	Cells     []cell       `json:",omitempty"`
	Sizes     []sizeResult `json:",omitempty"`
	Failovers []failovers  `json:",omitempty"`
	Idle      []idleResult `json:",omitempty"`
}

// failovers are all of one system.
type failovers struct {
	System string
	Each   []failoverResult
}

type machine struct {
	CPU   string
	Cores int
	Go    string
}

func describeMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	info, _ := os.ReadFile("/proc/cpuinfo") // elsewhere it stays unnamed
	if _, rest, ok := strings.Cut(string(info), "model name"); ok {
		line, _, _ := strings.Cut(rest, "\n")
		m.CPU = strings.Trim(line, " \t:")
	}
	return m
}

// medians makes one cell of those of all rounds: the median of each figure, and all
// errors.
func medians(rounds [][]cell) []cell {
	type place struct {
		system, row string
		clients     int
	}
	var order []place
	at := map[place][]cell{}
	for _, cells := range rounds {
		for _, c := range cells {
			p := place{c.System, c.Row, c.Clients}
			if at[p] == nil {
				order = append(order, p)
			}
			at[p] = append(at[p], c)
		}
	}
	var all []cell
	for _, p := range order {
		cells := at[p]
		m := cell{System: p.system, Row: p.row, Clients: p.clients}
		for _, f := range []func(*cell) *float64{
			func(c *cell) *float64 { return &c.OpsPerSecond },
			func(c *cell) *float64 { return &c.P50Micros },
			func(c *cell) *float64 { return &c.P99Micros },
			func(c *cell) *float64 { return &c.CPUMicros },
			func(c *cell) *float64 { return &c.Allocs },
			func(c *cell) *float64 { return &c.AllocBytes },
		} {
			var values []float64
			for i := range cells {
				values = append(values, *f(&cells[i]))
			}
			slices.Sort(values)
			*f(&m) = values[len(values)/2]
		}
		for _, c := range cells {
			m.PeakRSSBytes = max(m.PeakRSSBytes, c.PeakRSSBytes)
			m.Errors += c.Errors
			if c.LastError != "" {
				m.LastError = c.LastError
			}
		}
		all = append(all, m)
	}
	return all
}

// reportAgain makes tables and plots of results that were measured before.
func reportAgain(args []string) error {
	if len(args) != 1 {
		return errors.New("report: name the directory with the results")
	}
	data, err := os.ReadFile(filepath.Join(args[0], "results.json"))
	if err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	return write(args[0], r)
}

// report prints the results, and writes them to the directory for them.
func report(c config, r results) (err error) {
	r.When = time.Now().UTC().Truncate(time.Second)
	if err := printTables(os.Stdout, r); err != nil || c.out == "" {
		return err
	}
	return write(c.out, r)
}

// write writes results, tables and plots to a directory.
func write(dir string, r results) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(encoded, '\n'), 0o644); err != nil {
		return err
	}
	tables, err := os.Create(filepath.Join(dir, "results.txt"))
	if err != nil {
		return err
	}
	return errors.Join(printTables(tables, r), tables.Close(), plotRows(dir, r.Cells))
}

// printTables prints one table of all cells.
func printTables(w io.Writer, r results) error {
	fmt.Fprintf(w, "%s, %d cores, %s, %s\n\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Go, r.When.Format(time.DateOnly))
	for _, print := range []func(io.Writer, results){printCells, printTargets, printSizes, printFailovers, printIdle} {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		print(t, r)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func printCells(t io.Writer, r results) {
	last := ""
	for _, c := range inOrder(r.Cells) {
		if c.Row != last {
			fmt.Fprintf(t, "%s\tclients\tops/s\tp50 µs\tp99 µs\tCPU µs/op\tallocs/op\tB/op\tpeak MiB\terrors\t\n", c.Row)
			last = c.Row
		}
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.1f\t%.0f\t%.0f\t%d\t%d\t\n", c.System, c.Clients, c.OpsPerSecond,
			c.P50Micros, c.P99Micros, c.CPUMicros, c.Allocs, c.AllocBytes, c.PeakRSSBytes>>20, c.Errors)
	}
}

func printSizes(t io.Writer, r results) {
	if len(r.Sizes) == 0 {
		return
	}
	fmt.Fprintln(t, "\nby size\tkeys\tsnapshot ms\tkB written\trestart ms\tpeak MiB\tafter kill ms\tpeak MiB\tinstall s\tMB written\tpeak MiB\tsender's\t")
	const mib = 1 << 20
	for _, s := range r.Sizes {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.0f\t%d\t%.0f\t%d\t%.2f\t%.0f\t%d\t%d\t\n", s.System, s.Keys,
			1e3*s.Snapshot.Seconds, float64(s.Snapshot.BytesWritten)/1e3,
			1e3*s.RestartInOrder.LocalReadSeconds, s.RestartInOrder.PeakRSSBytes/mib,
			1e3*s.RestartAfterKill.LocalReadSeconds, s.RestartAfterKill.PeakRSSBytes/mib,
			s.Install.Seconds, float64(s.Install.BytesWritten)/1e6, s.Install.ReceiverPeakRSSBytes/mib, s.Install.SenderPeakRSSBytes/mib)
	}
}

func printFailovers(t io.Writer, r results) {
	if len(r.Failovers) == 0 {
		return
	}
	fmt.Fprintln(t, "\nfailover\tleaders lost\tmedian s\tlongest s\tgap in the load, median s\tlongest s\t")
	for _, f := range r.Failovers {
		first := func(r failoverResult) float64 { return r.Seconds }
		gap := func(r failoverResult) float64 { return r.LoadGapSeconds }
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t\n", f.System, len(f.Each),
			medianOf(f.Each, first), maxOf(f.Each, first), medianOf(f.Each, gap), maxOf(f.Each, gap))
	}
}

func maxOf[T any](all []T, figure func(T) float64) (most float64) {
	for _, r := range all {
		most = max(most, figure(r))
	}
	return most
}

func printIdle(t io.Writer, r results) {
	if len(r.Idle) == 0 {
		return
	}
	fmt.Fprintln(t, "\nidle\tmember\tCPU %, after a fill\tMiB\tanonymous\tCPU %, started anew\tMiB\tanonymous\t")
	const mib = 1 << 20
	for _, i := range r.Idle {
		for n, f := range i.AfterFill {
			s := i.FreshlyStarted[n]
			fmt.Fprintf(t, "%s\t%d%s\t%.2f\t%d\t%d\t%.2f\t%d\t%d\t\n", i.System, n, map[bool]string{true: "*"}[s.Leader],
				f.CPUPercent, f.RSSBytes/mib, f.AnonymousRSSBytes/mib, s.CPUPercent, s.RSSBytes/mib, s.AnonymousRSSBytes/mib)
		}
	}
}

// inOrder sorts cells by row, clients and system.
func inOrder(cells []cell) []cell {
	cells = slices.Clone(cells)
	slices.SortStableFunc(cells, func(a, b cell) int {
		if a.Row != b.Row {
			return rowPosition(a.Row) - rowPosition(b.Row)
		}
		return a.Clients - b.Clients
	})
	return cells
}

func rowPosition(name string) int {
	return slices.IndexFunc(rows, func(r row) bool { return r.name == name })
}
