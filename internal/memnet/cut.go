package memnet

// Partition cuts all links between hosts of different groups. Hosts in no group
// are cut off from all. What was cut before is healed first.
func (n *Network) Partition(hosts []string, groups ...[]string) {
	group := map[string]int{}
	for i, g := range groups {
		for _, h := range g {
			group[h] = i + 1
		}
	}
	cut := map[direction]bool{}
	for _, a := range hosts {
		for _, b := range hosts {
			if a != b && (group[a] == 0 || group[a] != group[b]) {
				cut[direction{a, b}] = true
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mend(cut)
	for d := range cut {
		n.path(d.from, d.to).sever()
	}
}

// Cut cuts one direction of a link, in addition to what is cut. What is on its way
// does not arrive.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path(from, to).sever()
}

// Heal makes all links perfect. Connections over links that were cut are reset.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mend(nil)
	n.link = Link{}
	for _, p := range n.paths {
		p.link = nil
		p.relink()
	}
}

func (p *path) sever() {
	p.cut = true
	for _, s := range p.network.over(p) {
		s.lose()
	}
}

// mend restores the links that are cut, but for some.
func (n *Network) mend(but map[direction]bool) {
	for d, p := range n.paths {
		if !p.cut || but[d] {
			continue
		}
		p.cut = false
		for _, s := range n.over(p) {
			s.source.abort()
		}
	}
	n.announce()
}
