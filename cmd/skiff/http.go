package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/skiffprom"
)

// httpOptions are the flags of serve for operators' HTTP.
type httpOptions struct {
	address string
	pprof   bool
}

func addHTTPFlags(flags *pflag.FlagSet) *httpOptions {
	o := &httpOptions{}
	flags.StringVar(&o.address, "http", "", "`host:port` to serve /metrics, /healthz and /readyz on, to everybody who gets there")
	flags.BoolVar(&o.pprof, "pprof", false, "serve /debug/pprof there too")
	return o
}

// httpServer serves operators, of a node that need not run yet or any more.
type httpServer struct {
	server *http.Server
	served chan error // how serving has ended
}

// listen begins to serve, if that is wanted; otherwise the server is nil.
func (o *httpOptions) listen(e *env, node *skiff.Node) (*httpServer, error) {
	switch _, _, err := net.SplitHostPort(o.address); {
	case o.address == "" && o.pprof:
		return nil, usagef("--pprof needs --http")
	case o.address == "":
		return nil, nil
	case err != nil:
		return nil, usagef("--http: %w", err)
	}
	l, err := net.Listen("tcp", o.address)
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	s := &httpServer{
		server: &http.Server{
			Handler:           o.handler(node),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      2 * time.Minute, // a profile takes half a minute by default
			IdleTimeout:       time.Minute,
		},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.server.Serve(l) }()
	fmt.Fprintf(e.stderr, "http on %s\n", l.Addr())
	return s, nil
}

// close lets what is under way end, for a moment.
func (s *httpServer) close() error {
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		_ = s.server.Close() // a profile, say
	}
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

func (o *httpOptions) handler(node *skiff.Node) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		skiffprom.New(node), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	addProbes(mux, node)
	if o.pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// probed is what probes ask of a node.
type probed interface {
	State() skiff.State
	Stats() skiff.Stats
}

// addProbes serves whether the process should be restarted, and whether it should be
// sent requests.
func addProbes(mux *http.ServeMux, node probed) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		state := node.State()
		answerProbe(w, state != skiff.StateFailed && state != skiff.StateRemoved, string(state))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := node.Stats(); s.Ready {
			answerProbe(w, true, "ready, the leader is "+s.Leader)
		} else {
			answerProbe(w, false, "not ready: "+string(s.State))
		}
	})
}

func answerProbe(w http.ResponseWriter, ok bool, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, line)
}
