package main

import (
	"errors"
	"os"
	"path/filepath"
)

// atomicFile is a file that appears under its name complete and durable, or not
// at all.
type atomicFile struct {
	*os.File
	path string
}

func createAtomic(path string) (*atomicFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return nil, err
	}
	return &atomicFile{f, path}, nil
}

// commit gives the file its name.
func (f *atomicFile) commit() error {
	err := errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(f.path))
}

func (f *atomicFile) discard() {
	_ = f.Close()
	_ = os.Remove(f.Name())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
