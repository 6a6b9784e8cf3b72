package memnet_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/skiffdb/skiff/internal/memnet"
)

// A message there and as much back, over a perfect link.
func BenchmarkPingPong(b *testing.B) {
	for _, size := range []int{64, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			near, far := connect(b, memnet.New())
			go func() {
				buf := make([]byte, size)
				for {
					if _, err := io.ReadFull(far, buf); err != nil {
						return
					}
					if _, err := far.Write(buf); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, size)
			b.SetBytes(2 * int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := near.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(near, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// One direction only, as fast as it goes.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{64, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			near, far := connect(b, memnet.New())
			go func() {
				buf := make([]byte, size)
				for {
					if _, err := near.Write(buf); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.ReadFull(far, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
