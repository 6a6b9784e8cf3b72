package walfile

import (
	"errors"
	"io"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// NewFiler returns raft-wal's access to segments. With readOnly, nothing changes on
// the disk, although raft-wal believes it does.
func NewFiler(dir string, readOnly bool) types.SegmentFiler {
	var vfs types.VFS = fs.New()
	if readOnly {
		vfs = readOnlyFS{vfs}
	}
	return filer{segment.NewFiler(dir, vfs)}
}

type filer struct{ *segment.Filer }

// Open implements types.SegmentFiler. When raft-wal removes the end of a log it
// calls the segment sealed, although that has no index yet, and cannot read it any
// more when it has been opened again. It can be read as a tail is.
func (f filer) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	if info.IndexStart == 0 {
		return f.RecoverTail(info)
	}
	return f.Filer.Open(info)
}

type readOnlyFS struct{ types.VFS }

func (readOnlyFS) Create(string, string, uint64) (types.WritableFile, error) {
	return readOnlyFile{nothing{}}, nil
}

func (readOnlyFS) Delete(string, string) error { return nil }

func (fs readOnlyFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := fs.OpenReader(dir, name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

type readOnlyFile struct{ types.ReadableFile }

func (readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }
func (readOnlyFile) Sync() error                        { return errors.ErrUnsupported }

// nothing is an empty file.
type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (nothing) Close() error                      { return nil }
