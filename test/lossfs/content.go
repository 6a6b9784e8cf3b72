package lossfs

import "syscall"

// What follows is what a file system does with the content of files.

func (d *disk) size(f *file) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f.size
}

func (d *disk) read(f *file, b []byte, from int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f.read(b, from)
}

func (d *disk) write(f *file, b []byte, to int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if failure := d.writable(f.needsSpace(len(b), to)); failure != 0 {
		return failure
	}
	f.write(b, to)
	return 0
}

func (d *disk) truncate(f *file, size int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if failure := d.writable(false); failure != 0 {
		return failure
	}
	f.truncate(size)
	return 0
}

// reserve makes sure that there is space up to an end, and makes the file so long if
// grow is set.
func (d *disk) reserve(f *file, end int64, grow bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if failure := d.writable(end > f.reserved); failure != 0 {
		return failure
	}
	f.reserve(end)
	if grow {
		f.size = max(f.size, end)
	}
	return 0
}
