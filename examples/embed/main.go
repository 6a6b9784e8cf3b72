// Command embed is a small HTTP service on an embedded, replicated database:
//
//	PUT /kv/KEY     stores the body
//	GET /kv/KEY     returns it
//	DELETE /kv/KEY  removes it
//	GET /kv/?prefix=P  lists keys
//
// Start three of them, and use any:
//
//	embed -http :8080 -raft /ip4/127.0.0.1/tcp/9490 -dir /tmp/n0 -peers /ip4/127.0.0.1/tcp/9491,/ip4/127.0.0.1/tcp/9492
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

func main() {
	httpAddr := flag.String("http", "127.0.0.1:8080", "address of the HTTP service")
	raftAddr := flag.String("raft", "/ip4/127.0.0.1/tcp/9490", "address of this node")
	dir := flag.String("dir", "data", "data directory")
	peers := flag.String("peers", "", "addresses of the other nodes, separated by commas")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	options := skiff.Options{Dir: *dir, Logger: slog.Default()}
	if *peers != "" {
		options.Peers = strings.Split(*peers, ",")
	}
	l, err := net.Listen("tcp", *httpAddr)
	if err == nil {
		err = run(ctx, l, *raftAddr, options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, l net.Listener, address string, o skiff.Options) (err error) {
	node, err := skiff.New(address, o)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if err := node.Start(ctx); err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, node.Stop(stopping))
	}()

	server := &http.Server{Handler: service{node.DB()}.routes()}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(server.Shutdown(stopping), <-served)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

type service struct {
	db *skiff.DB
}

func (s service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /kv/{$}", s.list)
	mux.HandleFunc("GET /kv/{key...}", s.get)
	mux.HandleFunc("PUT /kv/{key...}", s.put)
	mux.HandleFunc("DELETE /kv/{key...}", s.delete)
	return mux
}

func (s service) get(w http.ResponseWriter, r *http.Request) {
	value, err := s.db.WithContext(r.Context()).Get([]byte(r.PathValue("key")), nil)
	if err != nil {
		fail(w, err)
		return
	}
	_, _ = w.Write(value) // the client may have gone
}

func (s service) put(w http.ResponseWriter, r *http.Request) {
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	s.finish(w, s.db.WithContext(r.Context()).Put([]byte(r.PathValue("key")), value, nil))
}

func (s service) delete(w http.ResponseWriter, r *http.Request) {
	s.finish(w, s.db.WithContext(r.Context()).Delete([]byte(r.PathValue("key")), nil))
}

func (s service) list(w http.ResponseWriter, r *http.Request) {
	it := s.db.WithContext(r.Context()).NewIterator(util.BytesPrefix([]byte(r.FormValue("prefix"))), nil)
	defer it.Release()
	for it.Next() {
		fmt.Fprintf(w, "%s\n", it.Key())
	}
	if err := it.Error(); err != nil {
		fail(w, err)
	}
}

func (s service) finish(w http.ResponseWriter, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// fail tells the caller whether to repeat: 503 means that nothing was done, 504
// that a write may have been.
func fail(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, leveldb.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, skiff.ErrTooLarge):
		code = http.StatusRequestEntityTooLarge
	case errors.Is(err, skiff.ErrUnknownOutcome):
		code = http.StatusGatewayTimeout
	}
	http.Error(w, err.Error(), code)
}
