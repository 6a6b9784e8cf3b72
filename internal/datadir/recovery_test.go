package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// From its begin to its end a recovery keeps nodes out, and whoever completes it
// finds what was begun.
func TestRecovery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	d := mustOpen(t, path, addressA)
	before := d.Identity()
	if err := errors.Join(d.SetClusterID("ab"), d.Update(func(i *Identity) { i.AdmittedTerm, i.AdmittedIndex = 3, 10 })); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)

	want := Recovery{ClusterID: "cd", Index: 12, Term: 5, OldClusterID: "ab", Members: []string{addressA, addressB}, LastTerm: 4, Applied: 9, Unapplied: 2}
	d = mustOpenExisting(t, path)
	if err := d.BeginRecovery(want); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	if _, err := Open(path, addressA, "bolt"); !errors.Is(err, ErrRecovering) || !strings.Contains(err.Error(), path) {
		t.Fatalf("Open: %v, want ErrRecovering", err)
	}

	d = mustOpenExisting(t, path)
	if got := d.Identity(); got.Recovery == nil || !reflect.DeepEqual(*got.Recovery, want) || got.ClusterID != "ab" || got.AdmittedIndex != 10 {
		t.Errorf("identity %+v, recovery %+v", got, got.Recovery)
	}
	for range 2 {
		if err := d.EndRecovery(); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)
	after := before
	after.ClusterID = "cd"
	if got := mustOpen(t, path, addressA).Identity(); got != after {
		t.Errorf("identity %+v, want %+v", got, after)
	}
}

func mustOpenExisting(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenExisting(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpenExisting(t *testing.T) {
	empty := t.TempDir()
	for _, path := range []string{empty, filepath.Join(empty, "missing")} {
		if _, err := OpenExisting(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenExisting(%s): %v, want that it does not exist", path, err)
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("it made %v, %v", entries, err)
	}

	path := t.TempDir()
	d := mustOpen(t, path, addressA)
	if _, err := OpenExisting(path); !errors.As(err, new(*InUseError)) {
		t.Errorf("of an open directory: %v", err)
	}
	mustClose(t, d)
	d = mustOpenExisting(t, path)
	wantInUse(t, path, readHolder(filepath.Join(path, lockName)))
	mustClose(t, d)
	if err := d.BeginRecovery(Recovery{ClusterID: "ab", Index: 1, Term: 1}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("BeginRecovery after Close: %v", err)
	}

	writeFile(t, filepath.Join(path, identityName), "{}")
	if _, err := OpenExisting(path); !errors.As(err, new(*CorruptError)) {
		t.Errorf("of a damaged identity: %v", err)
	}
}

func TestIncompleteRecoveryIsDamage(t *testing.T) {
	path := t.TempDir()
	mustClose(t, mustOpen(t, path, addressA))
	d := mustOpenExisting(t, path)
	if err := d.BeginRecovery(Recovery{ClusterID: "no hex", Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	if _, err := OpenExisting(path); !errors.As(err, new(*CorruptError)) {
		t.Errorf("OpenExisting: %v, want a CorruptError", err)
	}
}
