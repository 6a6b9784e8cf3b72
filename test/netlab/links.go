package netlab

import (
	"errors"
	"fmt"
)

// cutRules drop what comes from some hosts and what goes to some, none at first. Both
// ends drop, so that over a proxy neither half of the way works.
const cutRules = `
table inet cuts {
	set from { type ipv4_addr; }
	set to { type ipv4_addr; }
	chain input { type filter hook input priority 0; ip saddr @from drop; }
	chain output { type filter hook output priority 0; ip daddr @to drop; }
}`

// Cut drops all packets from one host to another, until [Lab.Heal]. Connections stay
// as they are: both sides hear nothing, or not of each other.
func (l *Lab) Cut(from, to *Host) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(from.drop("to", to), to.drop("from", from))
}

// drop adds another host to a set. The machine's own rules are left alone: the other
// end drops.
func (h *Host) drop(set string, other *Host) error {
	if h.number == Outside {
		return nil
	}
	return h.nft(fmt.Sprintf("add element inet cuts %s { %s, %s }", set, other.IP(), other.Alias()))
}

// Unplug pulls the host's cable, until [Lab.Heal].
func (l *Lab) Unplug(h *Host) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ip("-n " + h.namespace + " link set eth0 down")
}

// Heal restores all links.
func (l *Lab) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, h := range l.hosts[Outside+1:] {
		errs = append(errs,
			h.nft("flush set inet cuts from; flush set inet cuts to"),
			ip("-n "+h.namespace+" link set eth0 up"))
	}
	return errors.Join(errs...)
}
