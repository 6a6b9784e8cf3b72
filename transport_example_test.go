package skiff_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/skiffdb/skiff"
)

// tlsTransport demands a certificate from both sides.
type tlsTransport struct{ config *tls.Config }

func (t tlsTransport) Listen(ctx context.Context, address multiaddr.Multiaddr) (net.Listener, error) {
	network, host, err := manet.DialArgs(address)
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, t.config), nil
}

func (t tlsTransport) Dial(ctx context.Context, address multiaddr.Multiaddr) (net.Conn, error) {
	network, host, err := manet.DialArgs(address)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: t.config}
	return dialer.DialContext(ctx, network, host)
}

// A Transport with TLS. In a program it goes into Options.Transport.
func ExampleTransport() {
	config, err := selfSigned("skiff.example")
	if err != nil {
		log.Fatal(err)
	}
	var transport skiff.Transport = tlsTransport{config}

	ctx := context.Background()
	l, err := transport.Listen(ctx, multiaddr.StringCast("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()

	address, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		log.Fatal(err)
	}
	conn, err := transport.Dial(ctx, address)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	var echo string
	fmt.Fscanln(conn, &echo)
	fmt.Println(echo)
	// Output: hello
}

// selfSigned makes one certificate for all nodes, which trust only each other.
func selfSigned(name string) (*tls.Config, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{name},
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(certificate)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		ServerName:   name,
		RootCAs:      trusted,
		ClientCAs:    trusted,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}, nil
}
