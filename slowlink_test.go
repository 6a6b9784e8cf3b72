package skiff_test

import (
	"fmt"
	"testing"

	"github.com/skiffdb/skiff"
)

// A follower that is many large entries behind gets them in messages that arrive
// in time, over any link that carries single entries. raft counts entries only.
func TestFollowerOnASlowLinkCatchesUp(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) { o.InMemory = true })
		leader := c.leader()
		behind, other := (leader+1)%3, (leader+2)%3
		from, to := c.addrs[leader], c.addrs[behind]
		c.wantEverywhere("k", c.put(leader, "k")) // whom raft sends entries ahead of their answers now
		c.net.Limit(from, to, 4<<20)              // of messages of 1 MiB, three may be under way
		for _, stop := range []struct {
			name string
			link func() (resume func())
		}{
			{"slow", func() func() {
				released := make(chan struct{})
				c.net.OnWrite(func(a, b string, _ int) {
					if a == from && b == to {
						<-released
					}
				})
				return func() { close(released) }
			}},
			{"lost", func() func() {
				c.net.Partition(c.addrs, []string{from, c.addrs[other]})
				return c.net.Heal
			}},
		} {
			resume := stop.link()
			const entries = 6
			for i := range entries {
				if err := c.node(leader).DB().Put(fmt.Append(nil, stop.name, i), make([]byte, 900<<10), nil); err != nil {
					resume()
					t.Fatal(err)
				}
			}
			resume()
			for i := range entries {
				has, err := c.node(behind).DB().WithContext(testContext(t)).Has(fmt.Append(nil, stop.name, i), nil)
				if err != nil || !has {
					t.Fatalf("%s: entry %d has not arrived: %v", stop.name, i, err)
				}
			}
			if n := c.net.Exceeded(); n > 0 {
				t.Fatalf("%s: %d messages were too long for the link", stop.name, n)
			}
		}
	})
}
