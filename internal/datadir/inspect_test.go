package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestHold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	d, err := Open(dir, "/ip4/127.0.0.1/tcp/1", "bolt")
	if err != nil {
		t.Fatal(err)
	}
	var inUse *InUseError
	if _, err := Hold(dir); !errors.As(err, &inUse) {
		t.Errorf("of an open directory: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // at a time
		release, err := Hold(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := release(); err != nil {
				t.Error(err)
			}
		}()
	}
	if _, err := Open(dir, "/ip4/127.0.0.1/tcp/1", "bolt"); !errors.As(err, &inUse) {
		t.Errorf("of a directory that is held: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, lockName)); err != nil || string(after) != string(before) {
		t.Errorf("the lock file was %q and is %q, %v", before, after, err)
	}
}

func TestHoldACopy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, identityName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a lock file was made: %v", err)
	}
	if _, err := Hold(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no directory: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, identityName), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(dir); !errors.Is(err, ErrForeign) {
		t.Errorf("of something else's directory: %v", err)
	}
}

func TestReadIdentity(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, identityName)
	if _, err := ReadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	d, err := Open(dir, "/ip4/127.0.0.1/tcp/1", "wal")
	if err != nil {
		t.Fatal(err)
	}
	want := d.Identity()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadIdentity(dir); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	other := want
	other.Format++
	data, err := encode(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var mismatch *MismatchError
	if _, err := ReadIdentity(dir); !errors.As(err, &mismatch) || mismatch.Field != "format" {
		t.Errorf("of another format: %v", err)
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged *CorruptError
	if _, err := ReadIdentity(dir); !errors.As(err, &damaged) || damaged.File != file {
		t.Errorf("of a damaged file: %v", err)
	}
}
