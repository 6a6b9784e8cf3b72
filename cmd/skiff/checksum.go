package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// askAgainWait is the wait before nodes that were at different indices are asked
// again.
const askAgainWait = 50 * time.Millisecond

func newChecksumCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checksum",
		Short: "Compare the content of all nodes",
		Long: `Ask every node of the cluster for the hash of its content and the log index that it
holds for, again until all are at one index or --timeout has passed. The exit code is 5 if
two nodes at one index differ or the nodes do not get to one index, 6 if one is unreachable.`,
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
func (c *client) compare(ctx context.Context, peers []skiff.Peer) ([]answer[skiff.Checksum], error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	nodes := make([]string, len(peers))
	for i, p := range peers {
		nodes[i] = p.Address
	}
	for {
		answers := askAll(nodes, func(node string) (skiff.Checksum, error) { return c.checksumOf(ctx, node) })
		verdict, final := compareChecksums(answers)
		if final {
			return answers, verdict
		}
		select {
		case <-ctx.Done():
			return answers, verdict
		case <-time.After(askAgainWait):
		}
	}
}

func (c *client) checksumOf(ctx context.Context, node string) (sum skiff.Checksum, err error) {
	err = c.at(ctx, node, func(db *skiff.DB) error {
		sum, err = db.Checksum(ctx)
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
		return fmt.Errorf("%w: the nodes are at different indices and cannot be compared; are there writes under way?", errUnhealthy), false
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
