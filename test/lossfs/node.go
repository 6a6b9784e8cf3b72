package lossfs

import (
	"context"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or directory as the kernel sees it. Files have no handles: all that
// is open is the same.
type node struct {
	fs.Inode
	disk  *disk
	entry *entry
}

var (
	_ fs.NodeLookuper   = (*node)(nil)
	_ fs.NodeReaddirer  = (*node)(nil)
	_ fs.NodeCreater    = (*node)(nil)
	_ fs.NodeMkdirer    = (*node)(nil)
	_ fs.NodeUnlinker   = (*node)(nil)
	_ fs.NodeRmdirer    = (*node)(nil)
	_ fs.NodeRenamer    = (*node)(nil)
	_ fs.NodeGetattrer  = (*node)(nil)
	_ fs.NodeSetattrer  = (*node)(nil)
	_ fs.NodeOpener     = (*node)(nil)
	_ fs.NodeReader     = (*node)(nil)
	_ fs.NodeWriter     = (*node)(nil)
	_ fs.NodeFlusher    = (*node)(nil)
	_ fs.NodeFsyncer    = (*node)(nil)
	_ fs.NodeAllocater  = (*node)(nil)
	_ fs.NodeAccesser   = (*node)(nil)
	_ fs.InodeEmbedder  = (*node)(nil)
	_ fs.DirStream      = fs.NewListDirStream(nil)
	_ fs.NodeGetxattrer = (*node)(nil)
)

// child gives the kernel a file or directory in this one.
func (n *node) child(ctx context.Context, e *entry, out *fuse.EntryOut) *fs.Inode {
	n.disk.describe(e, &out.Attr)
	return n.NewInode(ctx, &node{disk: n.disk, entry: e}, fs.StableAttr{Mode: e.kind(), Ino: e.number})
}

func (e *entry) kind() uint32 {
	if e.dir != nil {
		return fuse.S_IFDIR
	}
	return fuse.S_IFREG
}

func (d *disk) describe(e *entry, out *fuse.Attr) {
	out.Ino = e.number
	out.Mode = e.kind() | uint32(e.mode.Perm())
	out.Nlink = 1
	out.Blksize = pageSize
	if e.file != nil {
		out.Size = uint64(d.size(e.file))
		out.Blocks = (out.Size + 511) / 512
	}
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	e := n.disk.lookup(n.entry.dir, name)
	if e == nil {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, e, out), 0
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	names, entries := n.disk.list(n.entry.dir)
	list := make([]fuse.DirEntry, len(names))
	for i, name := range names {
		list[i] = fuse.DirEntry{Name: name, Mode: entries[i].kind(), Ino: entries[i].number}
	}
	return fs.NewListDirStream(list), 0
}

func (n *node) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	e, failure := n.disk.create(n.entry.dir, name, os.FileMode(mode).Perm())
	if failure != 0 {
		return nil, nil, 0, failure
	}
	return n.child(ctx, e, out), nil, 0, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	e, failure := n.disk.create(n.entry.dir, name, os.ModeDir|os.FileMode(mode).Perm())
	if failure != 0 {
		return nil, failure
	}
	return n.child(ctx, e, out), 0
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.disk.unlink(n.entry.dir, name)
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	return n.disk.rmdir(n.entry.dir, name)
}

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.disk.rename(n.entry.dir, name, to.(*node).entry.dir, newName, flags)
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.describe(n.entry, &out.Attr)
	return 0
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if failure := n.disk.truncate(n.entry.file, int64(size)); failure != 0 {
			return failure
		}
	}
	n.disk.describe(n.entry, &out.Attr) // all else is not kept
	return 0
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, b []byte, from int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(b[:n.disk.read(n.entry.file, b, from)]), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, b []byte, to int64) (uint32, syscall.Errno) {
	if failure := n.disk.write(n.entry.file, b, to); failure != 0 {
		return 0, failure
	}
	return uint32(len(b)), 0
}

func (n *node) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return n.disk.sync(n.entry)
}

func (n *node) Allocate(_ context.Context, _ fs.FileHandle, from, size uint64, mode uint32) syscall.Errno {
	const keepSize = 1
	if mode&^keepSize != 0 {
		return syscall.EOPNOTSUPP
	}
	return n.disk.reserve(n.entry.file, int64(from+size), mode&keepSize == 0)
}

func (n *node) Access(context.Context, uint32) syscall.Errno { return 0 }

// Getxattr says that there is nothing of the kind, for the kernel asks with each write.
func (n *node) Getxattr(context.Context, string, []byte) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}
