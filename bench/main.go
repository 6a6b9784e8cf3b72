// Command bench compares Skiff with etcd, with hashicorp/raft as it is, and with a local
// goleveldb, in one run on one machine.
//
//	go run . -out results/2026-11
//
// writes results.json, tables as results.md, and plots.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// config is what the flags say.
type config struct {
	out     string
	dir     string
	systems []string
	rows    *regexp.Regexp
	clients []int
	time    time.Duration
	rounds  int
	profile string

	parts     []string
	sizes     []int
	failovers int
}

// parts are what can be measured.
var parts = []string{"throughput", "sizes", "failover", "idle"}

func main() {
	if err := start(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start(args []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if len(args) > 0 {
		switch args[0] {
		case "report": // of results that are there, in the directory that is named
			return reportAgain(args[1:])
		// This program starts itself so.
		case "member":
			return runMember(args[1:])
		case "throughput":
			c, err := parse(args[1:])
			if err != nil {
				return err
			}
			return throughput(c)
		}
	}
	c, err := parse(args)
	if err != nil {
		return err
	}
	return compare(ctx, c)
}

func parse(args []string) (c config, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&c.out, "out", "", "`directory` for the results; none: only tables on standard output")
	flags.StringVar(&c.dir, "dir", "", "`directory` on the disk to measure; none: the system's for temporary files")
	names := flags.String("systems", "", "`names` of systems, with commas between; none: all")
	rowsLike := flags.String("rows", "", "`expression` that the names of rows match")
	clients := flags.String("clients", "", "`numbers` of clients, with commas between; none: as each row says")
	flags.DurationVar(&c.time, "time", time.Second, "how long each cell is measured, in each round; values of 1 MiB six times as long")
	flags.IntVar(&c.rounds, "rounds", 3, "how often each system is measured, in turn; medians count")
	these := flags.String("parts", strings.Join(parts, ","), "what to measure, with commas between")
	sizes := flags.String("sizes", "10000,100000,1000000", "`numbers` of keys for the part sizes, with commas between")
	flags.IntVar(&c.failovers, "failovers", 11, "how many leaders each system loses")
	flags.StringVar(&c.profile, "cpuprofile", "", "`file` for a profile of a single system")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if c.rows, err = regexp.Compile(*rowsLike); err != nil {
		return c, err
	}
	for _, s := range systems {
		c.systems = append(c.systems, s.name)
	}
	if *names != "" {
		c.systems = strings.Split(*names, ",")
	}
	for _, n := range c.systems {
		if _, err := systemNamed(n); err != nil {
			return c, err
		}
	}
	c.parts = strings.Split(*these, ",")
	for _, p := range c.parts {
		if !slices.Contains(parts, p) {
			return c, fmt.Errorf("there is no part %q", p)
		}
	}
	if c.sizes, err = numbers(*sizes); err != nil {
		return c, err
	}
	c.clients, err = numbers(*clients)
	return c, err
}

func numbers(list string) (all []int, err error) {
	if list == "" {
		return nil, nil
	}
	for n := range strings.SplitSeq(list, ",") {
		i, err := strconv.Atoi(n)
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// clientsOf is the numbers of clients that a row is measured with.
func (c config) clientsOf(r row) []int {
	all := r.clients
	if all == nil {
		all = usualClients
	}
	if c.clients == nil {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(n int) bool { return !slices.Contains(c.clients, n) })
}

// compare measures what the flags say, and reports it.
func compare(ctx context.Context, c config) error {
	r := results{Machine: describeMachine()}
	dir, err := os.MkdirTemp(c.dir, "bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left of an error does no harm
	for _, part := range c.parts {
		switch part {
		case "throughput":
			r.Cells, err = compareThroughput(ctx, c)
		case "sizes":
			r.Sizes, err = compareSizes(c, dir)
		case "failover":
			r.Failovers, err = compareFailovers(c, dir)
		case "idle":
			r.Idle, err = compareIdle(c, dir)
		}
		if err != nil {
			return err
		}
	}
	return report(c, r)
}

// compareThroughput measures all systems, each in a process of its own, so that none has
// to live with the heap of another, and in turn, so that a slow minute of the machine
// meets all.
func compareThroughput(ctx context.Context, c config) ([]cell, error) {
	var rounds [][]cell
	for round := range c.rounds {
		for _, s := range c.systems {
			progress("throughput, round %d of %d: %s", round+1, c.rounds, s)
			cells, err := inProcess(ctx, c, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			rounds = append(rounds, cells)
		}
	}
	return medians(rounds), nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// asProcesses are those of the systems whose members are measured as processes of their
// own.
func (c config) asProcesses() []string {
	return slices.DeleteFunc(slices.Clone(c.systems), func(name string) bool { return name != "etcd" && name != "skiff" })
}

func compareSizes(c config, dir string) (all []sizeResult, err error) {
	for _, s := range c.asProcesses() {
		progress("sizes: %s", s)
		results, err := measureSizes(c.sizes, s, filepath.Join(dir, "sizes"))
		if err != nil {
			return nil, err
		}
		all = append(all, results...)
	}
	return all, nil
}

func compareFailovers(c config, dir string) (all []failovers, err error) {
	for _, s := range c.asProcesses() {
		progress("failover: %s", s)
		results, err := measureFailover(s, filepath.Join(dir, "failover-"+s), c.failovers)
		if err != nil {
			return nil, err
		}
		all = append(all, failovers{System: s, Each: results})
	}
	return all, nil
}

func compareIdle(c config, dir string) (all []idleResult, err error) {
	for _, s := range c.asProcesses() {
		progress("idle: %s", s)
		result, err := measureIdle(s, filepath.Join(dir, "idle-"+s))
		if err != nil {
			return nil, err
		}
		all = append(all, result)
	}
	return all, nil
}

// inProcess measures one system in a process of its own.
func inProcess(ctx context.Context, c config, name string) (cells []cell, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"throughput", "-systems", name, "-rows", c.rows.String(), "-time", c.time.String(), "-dir", c.dir, "-cpuprofile", c.profile}
	if c.clients != nil {
		args = append(args, "-clients", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(c.clients)), ","), "[]"))
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	return cells, json.Unmarshal(out, &cells)
}

// throughput measures one system in this process, and prints the cells for the one that
// has started it.
func throughput(c config) (err error) {
	s, err := systemNamed(c.systems[0])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.dir, "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cluster, err := s.open(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.close()) }()
	if err := fill(cluster.leader); err != nil {
		return err
	}
	stop, err := startProfile(c.profile)
	if err != nil {
		return err
	}
	defer stop()
	cells := []cell{}
	for _, r := range rows {
		if !c.rows.MatchString(r.name) {
			continue
		}
		for _, n := range c.clientsOf(r) {
			m, err := measure(cluster, r, n, c.time*time.Duration(max(1, r.times)))
			if errors.Is(err, errUnsupported) {
				continue
			}
			if err != nil {
				return err
			}
			m.System = s.name
			cells = append(cells, m)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(cells)
}
