package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/skiffdb/skiff"
)

// TestThreeServices writes through one service and reads through the others.
func TestThreeServices(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	var nodes []string
	for i := range 3 {
		nodes = append(nodes, fmt.Sprintf("/unix%s/n%d.sock", dir, i))
	}
	done := make(chan error, len(nodes))
	var urls []string
	for i, address := range nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, "http://"+l.Addr().String()+"/kv/")
		o := skiff.Options{Dir: fmt.Sprintf("%s/%d", dir, i)}
		o.Peers = append(append(o.Peers, nodes[:i]...), nodes[i+1:]...)
		go func() { done <- run(ctx, l, address, o) }()
	}
	defer func() {
		cancel()
		for range nodes {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}()

	for i, url := range urls {
		key := fmt.Sprintf("users/%d", i)
		expect(t, http.MethodPut, url+key, "value of "+key, http.StatusNoContent, "")
		for _, other := range urls {
			expect(t, http.MethodGet, other+key, "", http.StatusOK, "value of "+key)
		}
	}
	expect(t, http.MethodGet, urls[1]+"?prefix=users/", "", http.StatusOK, "users/0\nusers/1\nusers/2\n")
	expect(t, http.MethodDelete, urls[2]+"users/1", "", http.StatusNoContent, "")
	expect(t, http.MethodGet, urls[0]+"users/1", "", http.StatusNotFound, "leveldb: not found\n")
}

func expect(t *testing.T, method, url, body string, wantCode int, wantBody string) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != wantCode || string(got) != wantBody {
		t.Fatalf("%s %s: %s %q (%v), want %d %q", method, url, response.Status, got, err, wantCode, wantBody)
	}
}
