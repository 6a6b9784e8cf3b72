package boltfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

var buckets = []string{"logs", "conf"}

// sample is a file with pages of all kinds: branches, leaves, ones that overflow,
// free ones, and a bucket that stands in a page of another.
func sample(t testing.TB, entries int) (file string, data []byte) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "sample.db")
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{NoSync: true, PageSize: minPageSize})
	if err != nil {
		t.Fatal(err)
	}
	update := func(fn func(logs, conf *bbolt.Bucket) error) {
		err := db.Update(func(tx *bbolt.Tx) error {
			logs, err := tx.CreateBucketIfNotExists([]byte("logs"))
			if err != nil {
				return err
			}
			conf, err := tx.CreateBucketIfNotExists([]byte("conf"))
			if err != nil {
				return err
			}
			return fn(logs, conf)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	key := func(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }
	for from := 0; from < entries; from += 10 {
		update(func(logs, _ *bbolt.Bucket) error {
			for i := from; i < from+10; i++ {
				if err := logs.Put(key(i), bytes.Repeat([]byte{byte(i)}, 20+i*i%(3*minPageSize))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	update(func(logs, conf *bbolt.Bucket) error {
		for i := range entries / 3 {
			if err := logs.Delete(key(i)); err != nil {
				return err
			}
		}
		return conf.Put([]byte("term"), []byte("seven"))
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, data
}

// contents is what Verify shows of a file.
func contents(data []byte) (pairs map[string]string, err error) {
	pairs = map[string]string{}
	err = verify(context.Background(), bytes.NewReader(data), int64(len(data)), buckets, func(bucket string, key, value []byte) error {
		pairs[bucket+"/"+string(key)] = string(value)
		return nil
	})
	return pairs, err
}

// byBolt is what bbolt shows of a file.
func byBolt(t testing.TB, file string) map[string]string {
	t.Helper()
	pairs := map[string]string{}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				pairs[string(name)+"/"+string(k)] = string(v)
				return nil
			})
		})
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return pairs
}

func TestVerifySound(t *testing.T) {
	for _, entries := range []int{0, 10, 500} {
		file, data := sample(t, entries)
		pairs, err := contents(data)
		if err != nil {
			t.Fatal(err)
		}
		if want := byBolt(t, file); !maps.Equal(pairs, want) {
			t.Errorf("%d entries: %d pairs, want %d", entries, len(pairs), len(want))
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"empty", "missing"} {
		if err := Verify(context.Background(), filepath.Join(dir, name), buckets, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	fresh := filepath.Join(dir, "fresh")
	db, err := bbolt.Open(fresh, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Close(), Verify(context.Background(), fresh, buckets, nil)); err != nil {
		t.Error(err)
	}
}

// A flipped byte is found, unless it stands in a key or a value, which are for
// others to verify, or changes nothing.
func TestVerifyFindsFlippedBytes(t *testing.T) {
	file, data := sample(t, 120)
	want := byBolt(t, file)
	rnd := rand.New(rand.NewPCG(1, 2))
	found, visible, nothing := 0, 0, 0
	for range 1500 {
		at := rnd.IntN(len(data))
		was := data[at]
		data[at] ^= byte(1 + rnd.IntN(255))
		switch pairs, err := contents(data); {
		case err != nil:
			found++
		case !maps.Equal(pairs, want):
			visible++
		default:
			nothing++
			if nothing%10 == 0 { // bbolt is slow
				if err := os.WriteFile(file, data, 0o600); err != nil {
					t.Fatal(err)
				}
				if got := byBolt(t, file); !maps.Equal(got, want) {
					t.Fatalf("byte %d: Verify sees nothing, and bbolt something else", at)
				}
			}
		}
		data[at] = was
	}
	if found == 0 || visible == 0 || nothing == 0 {
		t.Errorf("%d found, %d visible, %d nothing: this test proves nothing", found, visible, nothing)
	}
}

// bbolt would go back by a transaction.
func TestVerifyFindsADamagedMetaPage(t *testing.T) {
	_, data := sample(t, 20)
	for page := range 2 {
		for at := pageHeader; at < pageHeader+metaSize; at++ {
			damaged := bytes.Clone(data)
			damaged[page*minPageSize+at] ^= 1
			if _, err := contents(damaged); !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d of meta page %d: %v", at, page, err)
			}
		}
	}
	clear(data[minPageSize : 2*minPageSize])
	if _, err := contents(data); !errors.Is(err, ErrDamaged) {
		t.Errorf("a meta page of zeros: %v", err)
	}
}

func TestVerifyReportsAll(t *testing.T) {
	_, data := sample(t, 200)
	for page := 2; page < len(data)/minPageSize; page++ {
		head := data[page*minPageSize:]
		if order.Uint16(head[8:]) == leafPage && order.Uint16(head[10:]) > 2 { // not the root
			head[0] ^= 1 // its id
		}
	}
	_, err := contents(data)
	if n := strings.Count(fmt.Sprint(err), "has id"); n < 2 || strings.Contains(err.Error(), "\n") {
		t.Errorf("%d problems in %q", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := verify(ctx, bytes.NewReader(data), int64(len(data)), buckets, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// What Verify accepts, bbolt can read.
func FuzzVerify(f *testing.F) {
	for _, entries := range []int{0, 10, 60} {
		_, data := sample(f, entries)
		f.Add(data, 0, byte(0))
		f.Add(data, 3*minPageSize, byte(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, at int, flip byte) {
		if at >= 0 && at < len(data) {
			data[at] ^= flip
		}
		if len(data) == 0 || len(data) > 1<<20 {
			return
		}
		pairs, err := contents(data)
		if err != nil {
			return
		}
		file := filepath.Join(t.TempDir(), "fuzz.db")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := byBolt(t, file); !maps.Equal(got, pairs) {
			t.Errorf("bbolt shows %d pairs, Verify %d", len(got), len(pairs))
		}
	})
}
