package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/skiffdb/skiff/test/leftover"
)

const namespaceDir = "/run/netns/"

// Missing tells what is not there that a lab needs; nil if nothing.
func Missing() error { return missing() }

var missing = sync.OnceValue(func() error {
	if os.Getuid() != 0 {
		return errors.New("network namespaces need root")
	}
	for _, tool := range []string{"ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	probe := leftover.Name("probe")
	return ip("netns add "+probe, "netns delete "+probe)
})

// ip runs command lines of the tool ip, and stops at the first that fails.
func ip(commands ...string) error {
	for _, c := range commands {
		if err := run("", "ip", strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

// nft changes the rules of a host.
func (h *Host) nft(rules string) error {
	tool := h.In("nft", "-f", "-")
	return run(rules, tool[0], tool[1:]...)
}

func run(stdin, tool string, args ...string) error {
	cmd := exec.Command(tool, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.TrimSpace(cmd.String()+" "+stdin), err, bytes.TrimSpace(out))
	}
	return nil
}

// removeLeftovers removes, once, the namespaces of processes that are gone.
var removeLeftovers = sync.OnceValue(func() error { return removeNamespaces(leftover.IsOne) })

// removeNamespaces removes those that are chosen by their names, and with them the
// interfaces in them and the other ends of these.
func removeNamespaces(chosen func(name string) bool) error {
	namespaces, err := namespaces()
	var errs []error
	for _, name := range namespaces {
		if chosen(name) {
			errs = append(errs, ip("netns delete "+name))
		}
	}
	return errors.Join(append(errs, err)...)
}

// namespaces are the names of all that there are.
func namespaces() (names []string, err error) {
	entries, err := os.ReadDir(namespaceDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // until the first is made
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// freeSubnet finds a network that the machine has nothing to do with.
func freeSubnet() (netip.Prefix, error) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("look for a free network: %w", err)
	}
	for range 1000 {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + rand.IntN(128)), byte(rand.IntN(256)), 0}), 24)
		if !overlaps(subnet, own) {
			return subnet, nil
		}
	}
	return netip.Prefix{}, errors.New("look for a free network: none in 10.128.0.0/9")
}

func overlaps(subnet netip.Prefix, addresses []net.Addr) bool {
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Overlaps(subnet) {
			return true
		}
	}
	return false
}
