package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// membershipTimeout leaves time for a new member to get the data.
const membershipTimeout = 5 * time.Minute

func newJoinCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join ADDRESS",
		Short: "Take a running node into the cluster",
		Long: `Take the node that runs at ADDRESS into the cluster. It must have been started with
"serve --standby" or "serve --join". It gets the data first, and its vote when it has caught up; the command
ends then. If --timeout is over before, the node stays a nonvoter: the same command goes on,
and "skiff leave" undoes it. Joining a nonvoter gives it a vote; with --nonvoter a voter
stays one.`,
		Example: `  skiff serve /ip4/10.0.0.4/tcp/9490 --dir data --standby
  skiff join /ip4/10.0.0.4/tcp/9490`,
		Args: cobra.ExactArgs(1),
	}
	nonvoter := cmd.Flags().Bool("nonvoter", false, "a read replica: it neither votes nor counts for a majority")
	c := newClient(e, cmd, membershipTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var options []skiff.JoinOption
		if *nonvoter {
			options = append(options, skiff.AsNonvoter)
		}
		return c.cluster(cmd.Context(), func(ctx context.Context, cluster skiff.Cluster) error {
			return cluster.Join(ctx, args[0], options...)
		})
	}
	return cmd
}

func newLeaveCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave ADDRESS",
		Short: "Remove a member from the cluster",
		Long: `Remove the member at ADDRESS, which may be down, from the cluster. If it runs, it stops
itself. Refused, with exit code 5, where those that are left and alive would be no majority;
--force removes it all the same, and asks first: the cluster is without a leader then until
others come back. It needs a leader; where a majority is lost for ever, see "skiff recover".`,
		Example: `  skiff leave /ip4/10.0.0.4/tcp/9490`,
		Args:    cobra.ExactArgs(1),
	}
	force := cmd.Flags().Bool("force", false, "even if the quorum is lost with it")
	sure := cmd.Flags().Bool("yes", false, "do not ask")
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var options []skiff.LeaveOption
		if *force {
			options = append(options, skiff.Force)
		}
		if *force && !*sure {
			fmt.Fprintf(e.stderr, `This removes %s even if those that are left and alive are no majority. Then
nothing can be written, and nobody elected, until others come back.
`, args[0])
			if err := confirm(cmd.Context(), e); err != nil {
				return err
			}
		}
		return c.cluster(cmd.Context(), func(ctx context.Context, cluster skiff.Cluster) error {
			return cluster.Leave(ctx, args[0], options...)
		})
	}
	return cmd
}

func newTransferCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer [ADDRESS]",
		Short: "Make another node the leader",
		Long:  "Make the voter at ADDRESS the leader, or any other than the one that leads, and wait until it does.",
		Example: `  skiff transfer
  skiff transfer /ip4/10.0.0.2/tcp/9490`,
		Args: cobra.MaximumNArgs(1),
	}
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		address := ""
		if len(args) > 0 {
			address = args[0]
		}
		return c.cluster(cmd.Context(), func(ctx context.Context, cluster skiff.Cluster) error {
			return cluster.TransferLeadership(ctx, address)
		})
	}
	return cmd
}

func newWeakenCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "weaken ADDRESS",
		Short: "Make a node leave elections to others for a while",
		Long: `Make the node at ADDRESS leave elections to others, until --for is over or it learns of a
new leader. It goes on to vote and to serve. A leader hands over first.`,
		Example: `  skiff weaken /ip4/10.0.0.2/tcp/9490 --for 10m`,
		Args:    cobra.ExactArgs(1),
	}
	d := cmd.Flags().Duration("for", time.Minute, "how long; 0 ends it")
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.cluster(cmd.Context(), func(ctx context.Context, cluster skiff.Cluster) error {
			return cluster.Weaken(ctx, args[0], *d)
		})
	}
	return cmd
}

func newWaitCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait ADDRESS",
		Short: "Wait until a node has everything",
		Long: `Wait until the node at ADDRESS has applied everything that had been acknowledged anywhere in
the cluster before. Stale reads there see it then.`,
		Example: `  skiff wait /ip4/10.0.0.2/tcp/9490 && skiff get k --node /ip4/10.0.0.2/tcp/9490 --consistency stale`,
		Args:    cobra.ExactArgs(1),
	}
	c := newClient(e, cmd, requestTimeout)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.cluster(cmd.Context(), func(ctx context.Context, cluster skiff.Cluster) error {
			return cluster.WaitFor(ctx, args[0])
		})
	}
	return cmd
}

// cluster runs do within the timeout.
func (c *client) cluster(ctx context.Context, do func(context.Context, skiff.Cluster) error) error {
	return c.request(ctx, func(ctx context.Context, db *skiff.DB) error { return do(ctx, db.Cluster()) })
}
