package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// topOptions are the flags of top.
type topOptions struct {
	interval time.Duration
	count    int
	format   string
}

func newTopCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the members of the cluster",
		Long: `Show every --interval what 'skiff peers' tells of each member, how many writes and reads it
serves in a second, how long these took in the last minute, and what it sends or receives of
a state. It ends with SIGINT, or after --count times.

On a terminal the view stays in place and has colours, unless NO_COLOR is set. Elsewhere one
table follows the other, with an empty line between them.`,
		Example: `  skiff top
  skiff top --interval 5s --count 3
  skiff top -o jsonl | jq -c '[.time, .address, .writes_per_second]'`,
		Args: cobra.NoArgs,
	}
	var o topOptions
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "time between two looks")
	cmd.Flags().IntVar(&o.count, "count", 0, "end after this `number` of looks (default: never)")
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.format, err = outputFormat(cmd, "table", "json", "jsonl"); err != nil {
			return err
		}
		switch {
		case o.interval <= 0:
			return usagef("--interval %v is not positive", o.interval)
		case o.count < 0:
			return usagef("--count %d is negative", o.count)
		}
		return c.session(cmd.Context(), func(db *skiff.DB) error { return c.top(cmd.Context(), e, db, o) })
	}
	return cmd
}

// top looks again and again until ctx ends. A look that fails does not end it, but
// the last one decides on the exit code.
func (c *client) top(ctx context.Context, e *env, db *skiff.DB, o topOptions) error {
	s := newScreen(e, o.format)
	ticker := time.NewTicker(o.interval)
	defer ticker.Stop()
	var before []skiff.Peer
	for n := 1; ; n++ {
		peers, err := c.lookAt(ctx, db)
		if ctx.Err() != nil {
			return nil
		}
		rows := topRows(before, peers)
		if err == nil {
			before = peers
		}
		if err := s.show(rows, err); err != nil {
			return err
		}
		switch {
		case n == o.count && err != nil:
			return &toldError{err}
		case n == o.count:
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *client) lookAt(ctx context.Context, db *skiff.DB) ([]skiff.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return db.Cluster().Peers(ctx)
}

// topRow is what is shown of one member.
type topRow struct {
	Time time.Time `json:"time"`
	skiff.Peer
	// Since the look before; -1 if that is not known.
	WritesPerSecond float64 `json:"writes_per_second"`
	ReadsPerSecond  float64 `json:"reads_per_second"`
}

// topRows compares what was seen with what was seen before.
func topRows(before, peers []skiff.Peer) []topRow {
	earlier := map[string]*skiff.Stats{}
	for _, p := range before {
		earlier[p.Address] = p.Stats
	}
	now := time.Now()
	rows := make([]topRow, len(peers))
	for i, p := range peers {
		rows[i] = topRow{Time: now, Peer: p, WritesPerSecond: -1, ReadsPerSecond: -1}
		if b := earlier[p.Address]; b != nil && p.Stats != nil && p.Stats.Uptime > b.Uptime { // else it has started again
			seconds := (p.Stats.Uptime - b.Uptime).Seconds()
			rows[i].WritesPerSecond = float64(p.Stats.Writes.OK-b.Writes.OK) / seconds
			rows[i].ReadsPerSecond = float64(p.Stats.Reads.Total().OK-b.Reads.Total().OK) / seconds
		}
	}
	return rows
}

const topHeader = "ADDRESS\tROLE\tCONTACT\tLAG\tLAG BYTES\tLATENCY\tWRITES/S\tP50\tP99\tREADS/S\tP50\tP99\tINSTALL"

func topCells(r topRow) string {
	p := strings.Split(peerCells(r.Peer), "\t")
	cells := []string{p[0], p[1], p[3], p[4], p[5], p[6]} // all but whether it votes, and the version
	if r.Stats == nil {
		return strings.Join(cells, "\t")
	}
	writes, reads := r.Stats.Writes.Latency, r.Stats.Reads.Latency
	return strings.Join(append(cells,
		rateCell(r.WritesPerSecond), timeCell(writes.P50), timeCell(writes.P99),
		rateCell(r.ReadsPerSecond), timeCell(reads.P50), timeCell(reads.P99),
		installsCell(r.Stats.Installs),
	), "\t")
}

func rateCell(perSecond float64) string {
	if perSecond < 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", perSecond)
}

// screen is where top shows what it has seen.
type screen struct {
	e      *env
	format string
	live   bool // a table on a terminal, which stays in place
	used   bool
}

func newScreen(e *env, format string) *screen {
	live := format == "table" && isTerminal(e.stdout) && e.getenv("NO_COLOR") == ""
	return &screen{e: e, format: format, live: live}
}

// show shows rows, or why there are none.
func (s *screen) show(rows []topRow, failure error) error {
	var text bytes.Buffer
	switch {
	case failure != nil && !s.live:
		report(s.e.stderr, failure, s.format != "table")
		return nil
	case failure != nil:
		report(&text, failure, false)
	default:
		if s.used && !s.live && s.format == "table" {
			fmt.Fprintln(&text)
		}
		if err := printRows(&text, s.format, rows, topHeader, topCells); err != nil {
			return err
		}
	}
	s.used = true
	out := text.String()
	if s.live {
		out = inPlace(out, rows)
	}
	_, err := io.WriteString(s.e.stdout, out)
	return err
}

// What a terminal is told (ECMA-48).
const (
	home       = "\x1b[H"
	clearLine  = "\x1b[K" // from here to its end
	clearBelow = "\x1b[J"
	bold       = "\x1b[1m"
	green      = "\x1b[32m"
	yellow     = "\x1b[33m"
	red        = "\x1b[31m"
	plain      = "\x1b[0m"
)

// inPlace writes a table over the one before, and colours the header and the rows.
func inPlace(table string, rows []topRow) string {
	var b strings.Builder
	b.WriteString(home)
	for i, line := range strings.Split(strings.TrimSuffix(table, "\n"), "\n") {
		colour := ""
		switch {
		case i == 0:
			colour = bold
		case i <= len(rows):
			colour = rowColour(rows[i-1])
		}
		if colour != "" {
			line = colour + line + plain
		}
		b.WriteString(line + clearLine + "\n")
	}
	b.WriteString(clearBelow)
	return b.String()
}

func rowColour(r topRow) string {
	switch {
	case r.Role == skiff.StateLeader:
		return green
	case r.Role == skiff.StateFollower && r.Lag >= 0 && (r.Stats == nil || len(r.Stats.Installs) == 0):
		return ""
	case r.Role == skiff.StateFollower || r.Role == skiff.StateCandidate:
		return yellow
	}
	return red
}
