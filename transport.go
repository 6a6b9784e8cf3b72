package skiff

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Transport opens listeners and connections by multiaddr, so that TLS or an
// in-memory network can take the place of plain TCP and unix sockets. Both methods
// may be called concurrently.
//
// A transport with TLS wraps what it opens: Listen returns
// [crypto/tls.NewListener] around a net.Listener, and Dial returns
// [crypto/tls.Client] around a net.Conn. Nodes should demand each other's
// certificates (tls.RequireAndVerifyClientCert), since whoever can connect can write.
type Transport interface {
	// Listen opens a listener. The context bounds the call, not the listener's life.
	Listen(ctx context.Context, address multiaddr.Multiaddr) (net.Listener, error)

	// Dial connects. A DNS name has to be resolved anew on each call, since a node
	// may come back under another IP address. The context bounds the call, not the
	// connection's life.
	Dial(ctx context.Context, address multiaddr.Multiaddr) (net.Conn, error)
}

// keepAlive is how long a connection may be idle until the kernel probes it.
const keepAlive = 15 * time.Second

// netTransport is the default Transport: TCP and unix sockets.
type netTransport struct{}

func (t netTransport) Listen(ctx context.Context, address multiaddr.Multiaddr) (net.Listener, error) {
	network, host, err := dialArgs(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	l, err := t.listen(ctx, network, host)
	if network == "unix" && errors.Is(err, syscall.EADDRINUSE) {
		if err = t.removeStaleSocket(ctx, host); err == nil {
			l, err = t.listen(ctx, network, host)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

func (t netTransport) Dial(ctx context.Context, address multiaddr.Multiaddr) (net.Conn, error) {
	network, host, err := dialArgs(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	conn, err := t.dial(ctx, network, host)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return conn, nil
}

func (netTransport) listen(ctx context.Context, network, host string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: keepAlive}
	return lc.Listen(ctx, network, host)
}

func (netTransport) dial(ctx context.Context, network, host string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: keepAlive}
	return d.DialContext(ctx, network, host)
}

// dialArgs translates a multiaddr into what package net understands. Names are
// left to it to resolve.
func dialArgs(address multiaddr.Multiaddr) (network, host string, err error) {
	network, host, err = manet.DialArgs(address)
	if err != nil {
		return "", "", err
	}
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
		return network, host, nil
	}
	return "", "", fmt.Errorf("neither TCP nor a unix socket: %w", errors.ErrUnsupported)
}

// removeStaleSocket removes the socket file of a process that was killed, and
// fails if a living one answers on it. Two processes that do this at the same time
// could remove each other's socket; the lock of the data directory keeps two starts
// of one node apart.
func (t netTransport) removeStaleSocket(ctx context.Context, path string) error {
	conn, err := t.dial(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return syscall.EADDRINUSE
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its owner has removed it just now
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w, maybe by a stale socket: %w", syscall.EADDRINUSE, err)
	}
	// Dialling a plain file is refused, too, and that is not ours to remove.
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket: %w", path, syscall.EADDRINUSE)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
