package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// aheadTime is how long before the nodes get to an index they are asked for it, at
// first: long enough for the question to reach them.
const (
	aheadTime    = 250 * time.Millisecond
	longestAhead = time.Second // nodes wait for twice as long
)

func newChecksumCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checksum",
		Short: "Compare the content of all nodes",
		Long: `Ask every node of the cluster for the hash of its content at one log index, which while
writes go on is one that they are about to reach. If a node is too far behind or ahead, ask
again until --timeout has passed. The exit code is 5 if two nodes differ at one index or the
nodes do not get to one index, 6 if one is unreachable.`,
		Example: `  skiff checksum
  skiff checksum --timeout 1m -o jsonl`,
		Args: cobra.NoArgs,
	}
	c := newClient(e, cmd, 30*time.Second)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := outputFormat(cmd, "table", "json", "jsonl")
		if err != nil {
			return err
		}
		stats, err := c.clusterStats(cmd.Context())
		if err != nil {
			return err
		}
		answers, verdict := c.compare(cmd.Context(), stats.Peers)
		if err := printChecksums(e, format, answers); err != nil {
			return err
		}
		return verdict
	}
	return cmd
}

// compare asks all peers until they can be compared.
func (c *client) compare(ctx context.Context, peers []skiff.Member) ([]answer[skiff.Checksum], error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	nodes := make([]string, len(peers))
	for i, p := range peers {
		nodes[i] = p.Address
	}
	ahead := aheadTime
	for index := uint64(0); ; ahead = min(2*ahead, longestAhead) {
		answers := askAll(nodes, func(node string) (skiff.Checksum, error) { return c.checksumOf(ctx, node, index) })
		verdict, final := compareChecksums(answers)
		if final {
			return answers, verdict
		}
		var err error
		if index, err = c.indexAhead(ctx, nodes, ahead); err != nil {
			return answers, errors.Join(verdict, err)
		}
	}
}

// indexAhead is the log index that the nodes will have applied after a while, going
// by how fast writes come just now.
func (c *client) indexAhead(ctx context.Context, nodes []string, ahead time.Duration) (uint64, error) {
	before, err := c.newest(ctx, nodes)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(ahead / 4):
	}
	after, err := c.newest(ctx, nodes)
	if err != nil {
		return 0, err
	}
	return after + 1 + uint64(float64(after-before)*ahead.Seconds()/time.Since(start).Seconds()), nil
}

// newest is the highest index that one of the nodes has applied.
func (c *client) newest(ctx context.Context, nodes []string) (index uint64, err error) {
	answers := askAll(nodes, func(node string) (skiff.Stats, error) { return c.nodeStats(ctx, node) })
	for _, a := range answers {
		index = max(index, a.value.AppliedIndex)
	}
	if index == 0 {
		return 0, failures(answers)
	}
	return index, nil
}

func (c *client) checksumOf(ctx context.Context, node string, index uint64) (sum skiff.Checksum, err error) {
	err = c.at(ctx, node, func(db *skiff.DB) error {
		sum, err = db.ChecksumAt(ctx, index)
		return err
	})
	return sum, err
}

// compareChecksums tells what answers mean, and whether asking again could not
// change it.
func compareChecksums(answers []answer[skiff.Checksum]) (verdict error, final bool) {
	first := map[uint64]skiff.Checksum{}
	for _, a := range answers {
		if a.err != nil {
			continue
		}
		other, found := first[a.value.Index]
		if found && other.Sum != a.value.Sum {
			return fmt.Errorf("%w: %s and %s differ at index %d", errUnhealthy, other.Address, a.address, a.value.Index), true
		}
		first[a.value.Index] = a.value
	}
	if len(first) > 1 {
		return fmt.Errorf("%w: the nodes are at different indices and cannot be compared", errUnhealthy), false
	}
	return failures(answers), true
}

// checksumRow is what is known of one node.
type checksumRow struct {
	Address string `json:"address"`
	Index   uint64 `json:"index,omitempty"`
	Sum     string `json:"sum,omitempty"`
	Error   string `json:"error,omitempty"`
}

func printChecksums(e *env, format string, answers []answer[skiff.Checksum]) error {
	rows := make([]checksumRow, len(answers))
	for i, a := range answers {
		rows[i] = checksumRow{Address: a.address, Index: a.value.Index, Sum: a.value.String()}
		if a.err != nil {
			rows[i] = checksumRow{Address: a.address, Error: a.err.Error()}
		}
	}
	return printRows(e.stdout, format, rows, "ADDRESS\tINDEX\tSHA-256", func(r checksumRow) string {
		if r.Error != "" {
			return r.Address + "\t-\tno answer"
		}
		return fmt.Sprintf("%s\t%d\t%s", r.Address, r.Index, r.Sum)
	})
}
