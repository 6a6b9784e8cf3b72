package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
)

// What the state and the log of a member are when something is measured at a number of
// keys. There are as many writes whatever that number is, so that the logs are alike, and
// the last ones are single ones as in ordinary use, so that the entries of what a start
// finds in the log are small for all systems.
var (
	fillWrites = 1_000_000 // at least; a trial may do with less
	fillTail   = 20_000    // more entries than any of the systems keeps behind a snapshot
)

const (
	fillBatch   = 100 // etcd takes 128 at most
	fillWriters = 8
	tailWriters = 64
	fillValue   = 256
)

// fillKey has 16 bytes.
func fillKey(i int) []byte { return fmt.Appendf(nil, "key-%012d", i) }

// fill writes values that do not compress to so many keys, and has the members' stores
// come to rest.
func (g *group) fill(c groupClient, keys int) error {
	batches := max(keys, fillWrites) / fillBatch
	err := inParallel(fillWriters, batches, func(r *rand.ChaCha8, n int) error {
		batchKeys, values := make([][]byte, fillBatch), make([][]byte, fillBatch)
		for i := range fillBatch {
			batchKeys[i], values[i] = fillKey((n*fillBatch+i)%keys), randomValue(r)
		}
		return c.batch(batchKeys, values)
	})
	if err == nil {
		err = writeSingly(c, keys, fillTail)
	}
	if err == nil {
		err = g.orderAll("compact")
	}
	if err != nil {
		return fmt.Errorf("fill %d keys: %w", keys, err)
	}
	return nil
}

// writeSingly overwrites keys, one at a time for each of many writers.
func writeSingly(c groupClient, keys, writes int) error {
	return inParallel(tailWriters, writes, func(r *rand.ChaCha8, n int) error {
		ctx, cancel := patiently()
		defer cancel()
		return c.put(ctx, fillKey(n%keys), randomValue(r))
	})
}

func randomValue(r *rand.ChaCha8) []byte {
	value := make([]byte, fillValue)
	_, _ = r.Read(value) // never fails
	return value
}

// inParallel calls do with each number below n, from so many goroutines. Each has a source
// of random bytes of its own, and ends with the first error.
func inParallel(workers, n int, do func(r *rand.ChaCha8, i int) error) error {
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.NewChaCha8([32]byte{byte(w)})
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = do(r, i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
