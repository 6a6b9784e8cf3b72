package skiff

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/goleak"
)

func mustMultiaddr(t *testing.T, s string) multiaddr.Multiaddr {
	t.Helper()
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mustListen closes the listener when the test ends.
func mustListen(t *testing.T, address multiaddr.Multiaddr) net.Listener {
	t.Helper()
	l, err := netTransport{}.Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// wantEcho sends a message from Dial to l and back.
func wantEcho(t *testing.T, l net.Listener, address multiaddr.Multiaddr) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	defer func() {
		l.Close() // ends Accept if Dial has failed
		<-done
	}()
	conn, err := netTransport{}.Dial(t.Context(), address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	message := []byte("hello")
	if _, err := conn.Write(message); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(conn, message); err != nil || !bytes.Equal(message, []byte("hello")) {
		t.Errorf("echo: %q, %v", message, err)
	}
}

func TestNetTransportTCP(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, host := range []string{"/ip4/127.0.0.1", "/dns4/localhost", "/dns/localhost"} {
		l := mustListen(t, mustMultiaddr(t, host+"/tcp/0"))
		bound, err := manet.FromNetAddr(l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		port, err := bound.ValueForProtocol(multiaddr.P_TCP)
		if err != nil {
			t.Fatal(err)
		}
		wantEcho(t, l, mustMultiaddr(t, host+"/tcp/"+port))
	}
}

func TestNetTransportUnix(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	path := filepath.Join(t.TempDir(), "a.sock")
	address := mustMultiaddr(t, "/unix"+path)
	wantEcho(t, mustListen(t, address), address)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file outlives its listener: %v", err)
	}
}

func TestNetTransportRemovesStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	address := mustMultiaddr(t, "/unix"+path)
	killed := mustListen(t, address).(*net.UnixListener)
	killed.SetUnlinkOnClose(false)
	killed.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	wantEcho(t, mustListen(t, address), address)
}

func TestNetTransportAddressInUse(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	used := mustMultiaddr(t, "/unix"+filepath.Join(dir, "a.sock"))
	l := mustListen(t, used)
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []multiaddr.Multiaddr{used, mustMultiaddr(t, "/unix"+file)} {
		l, err := netTransport{}.Listen(t.Context(), address)
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Listen on %s: %v, %v, want address in use", address, l, err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "data" {
		t.Errorf("the file in the way: %q, %v", data, err)
	}

	probe, err := l.Accept() // the attempt to listen
	if err != nil {
		t.Fatal(err)
	}
	probe.Close()
	wantEcho(t, l, used)
}

func TestNetTransportErrors(t *testing.T) {
	refused := "/unix" + filepath.Join(t.TempDir(), "nobody.sock")
	if _, err := (netTransport{}).Dial(t.Context(), mustMultiaddr(t, refused)); err == nil || !strings.Contains(err.Error(), refused) {
		t.Errorf("Dial where nobody listens: %v, want the address in it", err)
	}
	for _, address := range []multiaddr.Multiaddr{nil, mustMultiaddr(t, "/ip4/127.0.0.1/udp/1"), mustMultiaddr(t, "/ip4/127.0.0.1")} {
		if l, err := (netTransport{}).Listen(t.Context(), address); err == nil {
			l.Close()
			t.Errorf("Listen on %v succeeded", address)
		}
		if conn, err := (netTransport{}).Dial(t.Context(), address); err == nil {
			conn.Close()
			t.Errorf("Dial of %v succeeded", address)
		}
	}
}
