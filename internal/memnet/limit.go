package memnet

// OnWrite calls fn before each write, on the goroutine that writes.
// It may cut links, which stops this write too.
func (n *Network) OnWrite(fn func(from, to string, bytes int)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onWrite = fn
}

// tellWrite calls the function of OnWrite, without the lock.
func (n *Network) tellWrite(p *path, bytes int) {
	if fn := n.onWrite; fn != nil {
		n.mu.Unlock()
		defer n.mu.Lock()
		fn(p.from, p.to, bytes)
	}
}

// Limit resets each connection on which one host writes more than max bytes to
// another without an answer in between. That is a link so slow, without the time:
// a longer message does not arrive before its sender loses patience.
func (n *Network) Limit(from, to string, max int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.path(from, to)
	p.limited, p.limit = true, max
}

// Exceeded is how many connections were reset because of a Limit.
func (n *Network) Exceeded() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.exceeded
}

// exceeds tells whether writing so many bytes more exceeds the link's limit.
func (c *conn) exceeds(bytes int) bool {
	c.peer.unanswered = 0
	c.unanswered += bytes
	p := c.out.path
	if !p.limited || c.unanswered <= p.limit {
		return false
	}
	c.network.exceeded++
	return true
}
