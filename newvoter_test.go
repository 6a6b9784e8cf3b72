package skiff_test

import (
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// A voter votes for a member that has become one while it was away: who may be elected
// stands in the candidate's log (Ongaro's thesis, section 4.1). Otherwise four members, of
// whom three are there, could be without a leader for ever.
func TestWhoWasAwayVotesForANewVoter(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(c *cluster, leader, added int){
		"unknown to it": func(*cluster, int, int) {},
		"to it a nonvoter": func(c *cluster, leader, added int) {
			c.join(leader, added, skiff.AsNonvoter)
			c.wantMembers([]int{0, 1, 2}, []int{added})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, func(o *skiff.Options) { o.HeartbeatTimeout = time.Second })
				leader := c.leader()
				away, behind := (leader+1)%3, (leader+2)%3
				added := c.add(standby)
				before(c, leader, added)
				c.net.Partition(c.addrs, []string{c.addrs[leader], c.addrs[behind], c.addrs[added]})
				c.join(leader, added)

				// The new one gets more than the others, so that nobody else may be elected.
				c.net.Cut(c.addrs[leader], c.addrs[behind])
				last := c.node(behind).Stats().LastIndex
				written, db := make(chan error, 1), c.node(leader).DB()
				go func() { written <- db.Put([]byte("k"), []byte("v"), nil) }()
				until(t, "the new one has more", func() bool { return c.node(added).Stats().LastIndex > last })
				c.kill(leader)
				<-written
				c.net.Heal()
				c.leaderAmong(away, behind, added)
				mustPut(t, c.node(away).DB(), "k", "after")
			})
		})
	}
}
