// Package address brings the multiaddrs that name nodes into one canonical form,
// so that two spellings of an address never count as two members.
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const accepted = "accepted are /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT and /unix/PATH, such as /ip4/127.0.0.1/tcp/9490"

// The kernel's limits: a socket path has to fit with its final NUL byte, a DNS
// name is at most 253 characters long.
const (
	maxUnixPath = len(syscall.RawSockaddrUnix{}.Path) - 1
	maxDNSName  = 253
)

// Parse reads an address to listen on or to dial, and returns it in canonical
// form. Port 0 and unspecified hosts such as 0.0.0.0 are allowed.
func Parse(s string) (multiaddr.Multiaddr, error) {
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, accepted)
	}
	text, err := canonicalText(m)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w; %s", s, err, accepted)
	}
	return multiaddr.NewMultiaddr(text)
}

// Canonical returns the one spelling by which a member is known. Others have to
// be able to dial it, so port 0 and unspecified hosts are refused.
func Canonical(s string) (string, error) {
	m, err := Parse(s)
	if err != nil {
		return "", err
	}
	if port, err := m.ValueForProtocol(multiaddr.P_TCP); err == nil && port == "0" {
		return "", fmt.Errorf("address %q: port 0 cannot be dialled; name the port", s)
	}
	if manet.IsIPUnspecified(m) {
		return "", fmt.Errorf("address %q: %s means every interface and cannot be dialled from elsewhere; name the host", s, m[0].Value())
	}
	return m.String(), nil
}

var errForm = errors.New("has another form")

// canonicalText checks the shape of m and spells it canonically.
func canonicalText(m multiaddr.Multiaddr) (string, error) {
	host := m[0]
	if host.Protocol().Code == multiaddr.P_UNIX {
		return canonicalUnix(host.Value())
	}
	if len(m) != 2 || m[1].Protocol().Code != multiaddr.P_TCP {
		return "", errForm
	}
	switch host.Protocol().Code {
	case multiaddr.P_IP4:
		return m.String(), nil
	case multiaddr.P_IP6:
		// Not reachable over tcp6, and a second spelling of an ip4 address.
		if ip, _ := netip.AddrFromSlice(host.RawValue()); ip.Is4In6() {
			return "", fmt.Errorf("%s is an IPv4 address; write /ip4/%s", ip, ip.Unmap())
		}
		return m.String(), nil
	case multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6:
		return strings.ToLower(m.String()), checkDNSName(host.Value())
	}
	return "", errForm
}

func canonicalUnix(p string) (string, error) {
	p = path.Clean(p)
	switch {
	case p == "/":
		return "", errors.New("has no path")
	case len(p) > maxUnixPath:
		return "", fmt.Errorf("the path has %d bytes, more than the %d that a socket can have", len(p), maxUnixPath)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return "", errors.New("the path is not printable text")
	}
	return "/unix" + p, nil
}

// checkDNSName refuses what no resolver can look up. It is liberal (underscores,
// a final dot), since names in private networks are.
func checkDNSName(name string) error {
	if len(name) > maxDNSName {
		return fmt.Errorf("the host name has %d characters, more than %d", len(name), maxDNSName)
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notInLabel) {
			return fmt.Errorf("%q is not a host name", name)
		}
	}
	return nil
}

func notInLabel(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}
