package skifftest

import (
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/memnet"
)

// Client stands for the host of [Cluster.Client], as one end of a link.
const Client = -1

const clientHost = "client"

// Link is how one direction of a connection between two hosts behaves. The zero value is
// perfect. Nodes see what TCP makes of it: bytes arrive in order, each once, but late;
// and where too little arrives the connection ends.
type Link struct {
	Delay     time.Duration // of each packet
	Jitter    time.Duration // up to so much more, at random
	Drop      float64       // probability that a packet is lost, and sent again after 200 ms, and then twice that, …
	Duplicate float64       // probability that a packet comes twice, which costs bandwidth
	Reorder   float64       // probability that a packet is overtaken by others, which then wait for it
	Bandwidth int           // bytes per second, 0 for any number
}

// Transport is the network as seen from a host, for nodes and clients that the
// test makes itself, and closes before it ends. Each name is a host: by that of a node,
// [Cluster.Address], a client stands behind that node's links.
func (c *Cluster) Transport(host string) skiff.Transport { return c.net.Host(host) }

func (c *Cluster) host(i int) string {
	c.t.Helper()
	if i == Client {
		return clientHost
	}
	c.known(i)
	return c.Address(i)
}

// Partition cuts all links between nodes of different groups, in both directions. A node
// in no group is cut off from all. [Client] reaches all nodes, unless it is in a group
// too. What was cut before is healed first; a node that is added later reaches all.
func (c *Cluster) Partition(groups ...[]int) {
	c.t.Helper()
	hosts, named, seen := c.members.addresses(), make([][]string, len(groups)), map[int]bool{}
	for g, nodes := range groups {
		for _, i := range nodes {
			if seen[i] {
				c.t.Fatalf("%d is in two groups", i)
			}
			seen[i] = true
			named[g] = append(named[g], c.host(i))
		}
	}
	if seen[Client] {
		hosts = append(hosts, clientHost)
	}
	c.net.Partition(hosts, named...)
}

// Cut cuts one direction of a link, in addition to what is cut: what from sends does
// not arrive, and nobody is told. Either end may be [Client].
func (c *Cluster) Cut(from, to int) {
	c.t.Helper()
	c.net.Cut(c.host(from), c.host(to))
}

// SetLink makes one direction of a link so. Either end may be [Client].
func (c *Cluster) SetLink(from, to int, l Link) {
	c.t.Helper()
	c.net.SetLink(c.host(from), c.host(to), memnet.Link(l))
}

// SetLinks makes all links so that have not been set by SetLink, between nodes and with
// clients.
func (c *Cluster) SetLinks(l Link) { c.net.SetLinks(memnet.Link(l)) }

// Heal restores all links to perfect ones. Connections over links that were cut are
// reset, as they are by hosts that have given up.
func (c *Cluster) Heal() { c.net.Heal() }
