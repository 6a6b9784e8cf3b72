package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// member is one node of a system, in a process of its own. It is used by one goroutine.
type member interface {
	// readLocal reads what this node has, without asking another one: a stale read of
	// Skiff's, a serializable one of etcd's.
	readLocal(key []byte) (found bool, err error)
	// readLinearizable needs a leader with a majority; whether key exists is no matter.
	readLinearizable(key []byte) error
	leads() bool
	// snapshot is what the system calls by that name, see snapshotResult.
	snapshot() error
	// compact lets the store on this node's disk come to rest.
	compact() error
	stop() error
}

// memberOptions say which node a process is.
type memberOptions struct {
	system string
	dir    string
	index  int   // of the node among the cluster's
	ports  []int // of all nodes on loopback, and for etcd, after these, those for clients
	nodes  int
	// shortLog keeps no more log behind a snapshot than must be, so that who comes with
	// nothing gets the state instead of the log. etcd has no need of it, see measureInstall.
	shortLog bool
	// existing makes an empty etcd member come to a cluster that has added it. Skiff finds
	// that out by itself.
	existing bool
	// await is a key that has to be there before the process serves. If it is empty, any
	// answer will do.
	await string
}

func (o memberOptions) args() []string {
	var ports []string
	for _, p := range o.ports {
		ports = append(ports, strconv.Itoa(p))
	}
	return []string{"member", "-system", o.system, "-dir", o.dir, "-index", strconv.Itoa(o.index),
		"-nodes", strconv.Itoa(o.nodes), "-ports", strings.Join(ports, ","), "-short-log=" + strconv.FormatBool(o.shortLog),
		"-existing=" + strconv.FormatBool(o.existing), "-await", o.await}
}

func parseMemberOptions(args []string) (o memberOptions, err error) {
	f := flag.NewFlagSet("member", flag.ContinueOnError)
	f.StringVar(&o.system, "system", "", "the system")
	f.StringVar(&o.dir, "dir", "", "the data directory")
	f.IntVar(&o.index, "index", 0, "which node this is")
	f.IntVar(&o.nodes, "nodes", 1, "how many nodes the cluster has")
	ports := f.String("ports", "", "all nodes' ports")
	f.BoolVar(&o.shortLog, "short-log", false, "keep little log behind a snapshot")
	f.BoolVar(&o.existing, "existing", false, "come to a cluster of etcd's that has added this node")
	f.StringVar(&o.await, "await", "", "the key to serve")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for p := range strings.SplitSeq(*ports, ",") {
		n, err := strconv.Atoi(p)
		if err != nil {
			return o, fmt.Errorf("ports: %w", err)
		}
		o.ports = append(o.ports, n)
	}
	if o.index < 0 || o.index >= o.nodes || len(o.ports) != 2*o.nodes {
		return o, fmt.Errorf("node %d of %d with %d ports", o.index, o.nodes, len(o.ports))
	}
	return o, nil
}

// runMember is the process of one node. It writes "local" when it has answered a local
// read and "linearizable" when it has answered such a one, and from then on answers each
// line of standard input with one of its own. When its standard input ends, so does it,
// at once: it never outlives who has started it.
func runMember(args []string) error {
	o, err := parseMemberOptions(args)
	if err != nil {
		return fmt.Errorf("member: %w", err)
	}
	commands := make(chan string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			commands <- in.Text()
		}
		os.Exit(1)
	}()
	m, err := openMember(o)
	if err != nil {
		return fmt.Errorf("open member %d of %s: %w", o.index, o.system, err)
	}
	awaitLocal(m, o.await)
	fmt.Println("local")
	for m.readLinearizable([]byte(o.await)) != nil {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("linearizable")
	for c := range commands {
		if c == "stop" {
			return m.stop()
		}
		answer, err := obey(m, c)
		if err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Println(answer)
	}
	return nil
}

func openMember(o memberOptions) (member, error) {
	if o.system == "etcd" {
		return openEtcdMember(o)
	}
	return openSkiffMember(o)
}

// awaitLocal returns when a local read has succeeded. Neither system tells when that will
// be, so it is tried until it is so.
func awaitLocal(m member, key string) {
	for {
		found, err := m.readLocal([]byte(key))
		if err == nil && (found || key == "") {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// obey carries out a command and returns the line that answers it.
func obey(m member, command string) (string, error) {
	verb, argument, _ := strings.Cut(command, " ")
	begun := time.Now()
	var err error
	switch verb {
	case "leads":
		return strconv.FormatBool(m.leads()), nil
	case "await":
		awaitLocal(m, argument)
	case "snapshot":
		err = m.snapshot()
	case "compact":
		err = m.compact()
	default:
		err = fmt.Errorf("unknown command %q", command)
	}
	return strconv.FormatFloat(time.Since(begun).Seconds(), 'g', -1, 64), err
}

// memberDir is where a node of a cluster keeps its data.
func memberDir(dir string, index int) string { return filepath.Join(dir, strconv.Itoa(index)) }

// memberPatience bounds whatever a member is asked for. It is for what never ends, and
// has to leave time for the compaction of a large state.
const memberPatience = 10 * time.Minute

func patiently() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), memberPatience, errors.New("the benchmark lost patience"))
}
