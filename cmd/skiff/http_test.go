package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiffdb/skiff"
)

// httpAddress waits until the node has said where it serves HTTP.
func (s *serving) httpAddress(t *testing.T) string {
	t.Helper()
	for s.log.Scan() {
		if address, ok := strings.CutPrefix(s.log.Text(), "http on "); ok {
			return address
		}
	}
	t.Fatal("serves no HTTP")
	return ""
}

func fetch(t *testing.T, url string) (status int, body string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// What operators ask for is there while the node runs, profiles only when they are
// wanted, and afterwards nothing listens any more.
func TestServeHTTP(t *testing.T) {
	t.Parallel()
	for _, pprof := range []bool{false, true} {
		addresses, err := freeAddresses(1)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{addresses[0], "--in-memory", "--http", "127.0.0.1:0"}
		if pprof {
			args = append(args, "--pprof")
		}
		s := startServe(t, args...)
		address := s.httpAddress(t)
		s.awaitReady(t, addresses[0])
		for path, want := range map[string]struct {
			status int
			body   string
		}{
			"/healthz":             {200, "leader\n"},
			"/readyz":              {200, "ready, the leader is " + addresses[0] + "\n"},
			"/metrics":             {200, `skiff_state{node="` + addresses[0] + `",state="leader"} 1`},
			"/debug/pprof/cmdline": {map[bool]int{true: 200, false: 404}[pprof], ""},
			"/debug/pprof/heap":    {map[bool]int{true: 200, false: 404}[pprof], ""},
			"/nothing":             {404, ""},
		} {
			if status, body := fetch(t, "http://"+address+path); status != want.status || !strings.Contains(body, want.body) {
				t.Errorf("pprof %v: %s: %d %.200s", pprof, path, status, body)
			}
		}
		s.stop()
		if code := s.awaitCode(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Errorf("%s still listens", address)
		}
	}
}

// failedNode is a node that has stopped itself.
type failedNode struct{}

func (failedNode) State() skiff.State { return skiff.StateFailed }
func (failedNode) Stats() skiff.Stats { return skiff.Stats{State: skiff.StateFailed} }

// A node that waits for others, or has not begun, lives and is not ready. One that has
// failed does not come back by itself.
func TestProbesOfNodesThatAreNotReady(t *testing.T) {
	t.Parallel()
	addresses, err := freeAddresses(3)
	if err != nil {
		t.Fatal(err)
	}
	alone := startNode(t, addresses[0], skiff.Options{InMemory: true, Peers: addresses[1:2]})
	idle, err := skiff.New(addresses[2], skiff.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		node    probed
		state   string
		healthz int
	}{
		{alone, "follower", 200}, {idle, "stopped", 200}, {failedNode{}, "failed", 503},
	} {
		mux := http.NewServeMux()
		addProbes(mux, test.node)
		for path, want := range map[string]struct {
			status int
			body   string
		}{
			"/healthz": {test.healthz, test.state + "\n"},
			"/readyz":  {503, "not ready: " + test.state + "\n"},
		} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want.status || w.Body.String() != want.body {
				t.Errorf("%s of a node that is %s: %d %q", path, test.state, w.Code, w.Body)
			}
		}
	}
}

// What is wrong with the address is told before the node touches its directory.
func TestServeHTTPWhereItCannot(t *testing.T) {
	t.Parallel()
	addresses, err := freeAddresses(1)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := filepath.Join(t.TempDir(), "node")
	for _, test := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--http", "nowhere"}, 2, "missing port"},
		{[]string{"--http", taken.Addr().String()}, 1, "in use"},
		{[]string{"--pprof"}, 2, "--pprof needs --http"},
	} {
		r := (&cli{}).run(t, append([]string{"serve", addresses[0], "--dir", dir}, test.args...)...)
		if r.code != test.code || !strings.Contains(r.stderr, test.text) {
			t.Errorf("%q: %+v", test.args, r)
		}
	}
	if left, _ := filepath.Glob(dir); left != nil {
		t.Error("the directory was made")
	}
}
