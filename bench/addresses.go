package main

import (
	"fmt"
	"net"
	"slices"
)

// freePorts finds ports on loopback that nobody listens on.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // it has served its purpose
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// multiaddrs is free ports in Skiff's notation.
func multiaddrs(n int) ([]string, error) {
	ports, err := freePorts(n)
	addrs := make([]string, len(ports))
	for i, p := range ports {
		addrs[i] = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", p)
	}
	return addrs, err
}

// without is list without what is at position i.
func without[T any](list []T, i int) []T { return slices.Delete(slices.Clone(list), i, i+1) }
