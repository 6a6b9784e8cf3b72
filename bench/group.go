package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// group is a cluster of which each member is a process. It is used by one goroutine.
type group struct {
	options []memberOptions
	members []*process // nil where none was started
	marks   int
}

// newGroup chooses addresses and directories; nothing runs yet.
func newGroup(system, dir string, nodes int) (*group, error) {
	ports, err := freePorts(2 * nodes)
	if err != nil {
		return nil, err
	}
	g := &group{members: make([]*process, nodes)}
	for i := range nodes {
		g.options = append(g.options, memberOptions{
			system: system, dir: memberDir(dir, i), index: i, ports: ports, nodes: nodes,
		})
	}
	return g, nil
}

// openGroup starts all members and waits until they serve.
func openGroup(system, dir string, nodes int, change func(*memberOptions)) (*group, error) {
	g, err := newGroup(system, dir, nodes)
	if err != nil {
		return nil, err
	}
	for i := range g.options {
		change(&g.options[i])
		if err := g.start(i); err != nil {
			g.close()
			return nil, err
		}
	}
	for i, m := range g.members {
		if _, _, err := m.serves(); err != nil {
			g.close()
			return nil, fmt.Errorf("member %d of %s: %w", i, system, err)
		}
	}
	return g, nil
}

func (g *group) start(i int) (err error) {
	if err := os.MkdirAll(g.options[i].dir, 0o700); err != nil {
		return err
	}
	g.members[i], err = startMember(g.options[i])
	return err
}

// restart stops a member in order, starts it, and waits until it serves.
func (g *group) restart(i int) error {
	if err := g.members[i].stop(); err != nil {
		return err
	}
	if err := g.start(i); err != nil {
		return err
	}
	_, _, err := g.members[i].serves()
	return err
}

// close ends all processes at once: nobody needs what they have.
func (g *group) close() {
	for _, m := range g.members {
		if m != nil {
			m.kill()
		}
	}
}

// leader is the member that leads, once there is one. All members must run.
func (g *group) leader() (int, error) {
	for deadline := time.Now().Add(memberPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for i, m := range g.members {
			leads, err := m.leads()
			if err != nil {
				return 0, err
			}
			if leads {
				return i, nil
			}
		}
	}
	return 0, errors.New("no member leads")
}

// orderAll has all members do something, one after the other.
func (g *group) orderAll(command string) error {
	for _, m := range g.members {
		if _, err := m.order(command); err != nil {
			return err
		}
	}
	return nil
}

// mark writes a key that was not there, and returns it.
func (g *group) mark(c groupClient) (string, error) {
	ctx, cancel := patiently()
	defer cancel()
	g.marks++
	key := fmt.Sprintf("mark-%011d", g.marks)
	return key, c.putUntil(ctx, []byte(key), []byte("x"))
}

// sync waits until each member has a key that is written now, and so all that was written
// before.
func (g *group) sync(c groupClient) error {
	key, err := g.mark(c)
	if err != nil {
		return err
	}
	return g.orderAll("await " + key)
}

// dial connects a client to all members.
func (g *group) dial() (groupClient, error) {
	o := g.options[0]
	if o.system == "etcd" {
		return dialEtcdGroup(o.ports[o.nodes:])
	}
	return dialSkiffGroup(skiffAddresses(o.ports[:o.nodes]))
}

// groupClient is a client in another process than the members', which knows all of them.
// It is safe for concurrent use.
type groupClient struct {
	put   func(ctx context.Context, key, value []byte) error
	batch func(keys, values [][]byte) error
	close func() error
}

// putUntil repeats a write until it is acknowledged or ctx ends.
func (c groupClient) putUntil(ctx context.Context, key, value []byte) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, putTimeout)
		err := c.put(attempt, key, value)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond) // or a system that refuses at once would be asked all the time
	}
}

// putTimeout bounds one attempt of a write. It is Skiff's default, and more than
// etcd itself waits.
const putTimeout = 10 * time.Second
