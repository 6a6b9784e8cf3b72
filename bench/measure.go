package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// cell is what was measured of one system in one row with a number of clients.
// CPU, allocations and memory are of the whole process: all members and clients.
type cell struct {
	System       string
	Row          string
	Clients      int
	OpsPerSecond float64
	P50Micros    float64
	P99Micros    float64
	CPUMicros    float64 // per operation
	Allocs       float64 // per operation
	AllocBytes   float64 // per operation
	PeakRSSBytes int64
	Errors       int    `json:",omitempty"` // operations that failed, which count nowhere else
	LastError    string `json:",omitempty"`
}

// measure lets a number of clients do a row's operation for a while. What has begun when
// the time is up is waited for and counts.
func measure(c *cluster, r row, clients int, d time.Duration) (cell, error) {
	at := r.at(c)
	workers := make([]*worker, clients)
	for i := range workers {
		workers[i] = newWorker(uint64(i))
	}
	if err := r.do(at[0], workers[0]); errors.Is(err, errUnsupported) {
		return cell{}, err
	}
	run(at, r, workers, d/5) // to warm up
	runtime.GC()
	resetPeakMemory()
	var before, after usage
	before.take()
	begin := time.Now()
	took, failed := run(at, r, workers, d)
	elapsed := time.Since(begin)
	after.take()
	out := cell{Row: r.name, Clients: clients, PeakRSSBytes: peakMemory(), Errors: failed.n}
	if failed.n > 0 {
		out.LastError = failed.last.Error()
	}
	n := float64(len(took))
	if n == 0 {
		return out, fmt.Errorf("%s with %d clients: no operation succeeded: %w", r.name, clients, failed.last)
	}
	slices.Sort(took)
	out.OpsPerSecond = n / elapsed.Seconds()
	out.P50Micros = micros(took[len(took)/2])
	out.P99Micros = micros(took[len(took)*99/100])
	out.CPUMicros = micros(after.cpu-before.cpu) / n
	out.Allocs = float64(after.allocs-before.allocs) / n
	out.AllocBytes = float64(after.bytes-before.bytes) / n
	return out, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

type failures struct {
	n    int
	last error
}

// run returns how long each operation took that succeeded.
func run(at []client, r row, workers []*worker, d time.Duration) (all []time.Duration, failed failures) {
	var mu sync.Mutex // guards all, failed
	var wg sync.WaitGroup
	var over atomic.Bool
	timer := time.AfterFunc(d, func() { over.Store(true) })
	defer timer.Stop()
	for i, w := range workers {
		c := at[i%len(at)]
		wg.Go(func() {
			var took []time.Duration
			var mine failures
			for !over.Load() {
				begin := time.Now()
				if err := r.do(c, w); err != nil {
					mine = failures{mine.n + 1, err}
					continue
				}
				took = append(took, time.Since(begin))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if mine.n > 0 {
				failed = failures{failed.n + mine.n, mine.last}
			}
		})
	}
	wg.Wait()
	return all, failed
}

// usage is what this process has used since it began.
type usage struct {
	cpu           time.Duration
	allocs, bytes uint64
}

func (u *usage) take() {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.allocs, u.bytes = m.Mallocs, m.TotalAlloc
}

// resetPeakMemory makes peakMemory count from now on (proc(5), clear_refs).
func resetPeakMemory() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// peakMemory is the most memory that this process had resident; 0 where that is unknown.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	var kib int64
	if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
		_, _ = fmt.Sscan(rest, &kib)
	}
	return kib << 10
}
