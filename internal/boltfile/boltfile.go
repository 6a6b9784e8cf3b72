// Package boltfile verifies files of go.etcd.io/bbolt before bbolt opens them.
//
// bbolt maps its file into memory and believes what stands there. Damage makes it
// panic, fault, recurse until the stack is full, hide keys or bring back ones that
// had been overwritten; and where one of its two meta pages is damaged it goes back
// by a transaction without a word. [Verify] reads the file with checks on every
// step instead. It finds each damaged byte but those in keys, in values, and in
// what carries nothing: free pages, the unused end of a page, sequence numbers.
package boltfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"strings"
)

// ErrDamaged says that a file does not hold what bbolt wrote.
var ErrDamaged = errors.New("not as bbolt wrote it")

// Visitor is called with each pair of a bucket at the top, in the order of keys. It
// must not keep them. Its errors are reported as they are.
type Visitor func(bucket string, key, value []byte) error

// Verify reads a file, which nobody may be writing, and returns all that is wrong
// with it. It may only have the buckets named. One that is empty or missing is fine.
func Verify(ctx context.Context, path string, buckets []string, visit Visitor) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		err = verify(ctx, f, info.Size(), buckets, visit)
	}
	return errors.Join(err, f.Close())
}

// The layout of a file. Numbers are in the byte order of the machine.
const (
	pageHeader = 16 // id, flags, count, overflow
	metaSize   = 64
	element    = 16 // of a branch or leaf page
	bucketHead = 16 // root, sequence

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	magic      = 0xED0CDAED
	version    = 2
	noFreelist = ^uint64(0)
	isBucket   = 0x01

	minPageSize, maxPageSize = 1 << 10, 16 << 20
	maxDepth                 = 64
	maxRun                   = 256 << 20 // bytes of a page with those that it overflows into
	maxReported              = 10
)

var order = binary.NativeEndian

// verifier is one Verify under way.
type verifier struct {
	ctx      context.Context
	file     io.ReaderAt
	size     int64
	pageSize int
	meta     meta
	used     []bool // by page: reached, or free
	visit    Visitor
	problems problems
}

// problems is an error on one line.
type problems []error

func (p problems) Unwrap() []error { return p }

func (p problems) Error() string {
	texts := make([]string, len(p))
	for i, err := range p {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

type meta struct {
	root, freelist, pages, txid uint64
}

func verify(ctx context.Context, file io.ReaderAt, size int64, buckets []string, visit Visitor) error {
	v := &verifier{ctx: ctx, file: file, size: size, visit: visit}
	if err := v.readMeta(); err != nil {
		return err
	}
	v.used = make([]bool, v.meta.pages)
	v.used[0], v.used[1] = true, true
	v.top(buckets)
	if v.meta.freelist != noFreelist {
		v.freelist()
	}
	if len(v.problems) == 0 {
		return nil
	}
	return v.problems
}

// found notes a problem. Many come in the wake of one.
func (v *verifier) found(format string, args ...any) {
	v.add(damaged(format, args...))
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

func (v *verifier) add(err error) {
	if len(v.problems) < maxReported {
		v.problems = append(v.problems, err)
	}
}

// readMeta reads the two meta pages, which are written in turn.
func (v *verifier) readMeta() error {
	first, err := v.metaAt(0)
	if err == nil {
		second, err := v.metaAt(int64(v.pageSize))
		return v.choose(first, second, 0, err)
	}
	// The second one stands at the end of the first page, of a size that only it
	// knows.
	for size := minPageSize; size <= maxPageSize; size *= 2 {
		second, secondErr := v.metaAt(int64(size))
		if secondErr == nil && v.pageSize == size {
			return v.choose(second, meta{}, 1, err)
		}
	}
	return damaged("no meta page: %w", err)
}

// choose takes the newer of the meta pages, given an error that the other one,
// which is not page which, may have.
func (v *verifier) choose(m, other meta, which uint64, err error) error {
	switch {
	case err != nil && (m.txid > 1 || !v.blank(1-which)):
		return damaged("meta page %d: %w", 1-which, err)
	case err != nil: // its creation was interrupted, and there is nothing in it
	case m.txid+1 != other.txid && other.txid+1 != m.txid:
		return damaged("the meta pages are of transactions %d and %d", m.txid, other.txid)
	case other.txid > m.txid:
		m = other
	}
	if m.pages < 2 || m.pages > uint64(v.size)/uint64(v.pageSize) {
		return damaged("%d pages of %d bytes in a file of %d", m.pages, v.pageSize, v.size)
	}
	v.meta = m
	return nil
}

// blank tells whether a page was never written.
func (v *verifier) blank(page uint64) bool {
	b := make([]byte, v.pageSize)
	n, _ := v.file.ReadAt(b, int64(page)*int64(v.pageSize))
	return len(bytes.Trim(b[:n], "\x00")) == 0
}

func (v *verifier) metaAt(offset int64) (m meta, err error) {
	b := make([]byte, pageHeader+metaSize)
	if _, err := v.file.ReadAt(b, offset); err != nil {
		return m, err
	}
	flags := order.Uint16(b[8:])
	b = b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	size := order.Uint32(b[8:])
	switch {
	case flags != metaPage:
		return m, fmt.Errorf("it has flags %#x", flags)
	case order.Uint32(b) != magic || order.Uint32(b[4:]) != version:
		return m, errors.New("magic number or version is wrong")
	case order.Uint64(b[metaSize-8:]) != sum.Sum64():
		return m, errors.New("checksum does not match")
	case size < minPageSize || size > maxPageSize || size&(size-1) != 0:
		return m, fmt.Errorf("page size is %d", size)
	}
	v.pageSize = int(size)
	return meta{
		root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]),
		pages: order.Uint64(b[40:]), txid: order.Uint64(b[48:]),
	}, nil
}

// page is a page with those that it overflows into.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte
}

// read reads a page that nothing else may refer to.
func (v *verifier) read(id uint64) (page, bool) {
	if v.ctx.Err() != nil {
		if len(v.problems) == 0 || !errors.Is(v.problems[len(v.problems)-1], context.Cause(v.ctx)) {
			v.add(context.Cause(v.ctx))
		}
		return page{}, false
	}
	if id < 2 || id >= v.meta.pages {
		v.found("page %d of %d", id, v.meta.pages)
		return page{}, false
	}
	head := make([]byte, pageHeader)
	if _, err := v.file.ReadAt(head, int64(id)*int64(v.pageSize)); err != nil {
		v.add(fmt.Errorf("page %d: %w", id, err))
		return page{}, false
	}
	overflow := uint64(order.Uint32(head[12:]))
	if order.Uint64(head) != id || overflow >= v.meta.pages-id || overflow >= uint64(maxRun/v.pageSize) {
		v.found("page %d has id %d and %d more pages", id, order.Uint64(head), overflow)
		return page{}, false
	}
	for i := id; i <= id+overflow; i++ {
		if v.used[i] {
			v.found("page %d is used twice", i)
			return page{}, false
		}
		v.used[i] = true
	}
	p := page{id: id, flags: order.Uint16(head[8:]), count: int(order.Uint16(head[10:])), data: make([]byte, int(overflow+1)*v.pageSize)}
	if _, err := v.file.ReadAt(p.data, int64(id)*int64(v.pageSize)); err != nil {
		v.add(fmt.Errorf("page %d: %w", id, err))
		return page{}, false
	}
	return p, true
}

// freelist checks that each page is either in use or free.
func (v *verifier) freelist() {
	p, ok := v.read(v.meta.freelist)
	if !ok {
		return
	}
	ids := p.data[pageHeader:]
	count := uint64(p.count)
	if p.count == 0xFFFF { // does not fit
		count, ids = order.Uint64(ids), ids[8:]
	}
	if p.flags != freelistPage || count > uint64(len(ids)/8) {
		v.found("the list of free pages, page %d, has flags %#x and %d entries", p.id, p.flags, count)
		return
	}
	for i := range count {
		id := order.Uint64(ids[8*i:])
		if id < 2 || id >= v.meta.pages || v.used[id] {
			v.found("page %d is called free", id)
			continue
		}
		v.used[id] = true
	}
	if len(v.problems) > 0 {
		return // of which lost pages are a consequence
	}
	if lost := slices.Index(v.used, false); lost >= 0 {
		v.found("page %d is neither in use nor free", lost)
	}
}

// top walks the bucket of buckets.
func (v *verifier) top(buckets []string) {
	tree := walk{v: v, leaf: func(flags uint32, key, value []byte) {
		switch {
		case flags&isBucket == 0 || !slices.Contains(buckets, string(key)):
			v.found("%q among the buckets", key)
		case len(value) < bucketHead:
			v.found("bucket %q of %d bytes", key, len(value))
		default:
			v.bucket(string(key), value)
		}
	}}
	tree.page(v.meta.root, nil, nil, 0)
}

// bucket walks a bucket, which stands in a page of its own or right in its value.
func (v *verifier) bucket(name string, value []byte) {
	tree := walk{v: v, leaf: func(flags uint32, key, value []byte) {
		if flags&isBucket != 0 {
			v.found("a bucket inside bucket %q", name)
		} else if err := v.visit(name, key, value); err != nil {
			v.add(err)
		}
	}}
	if root := order.Uint64(value); root != 0 {
		tree.page(root, nil, nil, 0)
		return
	}
	inline := value[bucketHead:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != leafPage {
		v.found("bucket %q stands in no page", name)
		return
	}
	tree.leaves(page{flags: leafPage, count: int(order.Uint16(inline[10:])), data: inline}, nil, nil)
}

// walk is a walk over the tree of one bucket.
type walk struct {
	v    *verifier
	leaf func(flags uint32, key, value []byte)
}

// page walks what is below a page. Its keys are not below low nor, unless that is
// nil, at or above limit.
func (w walk) page(id uint64, low, limit []byte, depth int) {
	p, ok := w.v.read(id)
	switch {
	case !ok:
	case depth > maxDepth:
		w.v.found("page %d is %d deep", id, depth)
	case p.flags == leafPage:
		w.leaves(p, low, limit)
	case p.flags == branchPage && p.count > 0:
		w.branches(p, low, limit, depth)
	default:
		w.v.found("page %d has flags %#x and %d entries", id, p.flags, p.count)
	}
}

func (w walk) branches(p page, low, limit []byte, depth int) {
	type branch struct {
		key []byte
		id  uint64
	}
	var all []branch
	ok := w.each(p, low, limit, func(head, key, _ []byte) {
		all = append(all, branch{key, order.Uint64(head[8:])})
	})
	if !ok {
		return // it may lead anywhere
	}
	for i, b := range all {
		next := limit
		if i+1 < len(all) {
			next = all[i+1].key
		}
		w.page(b.id, b.key, next, depth+1)
	}
}

func (w walk) leaves(p page, low, limit []byte) {
	w.each(p, low, limit, func(head, key, value []byte) {
		w.leaf(order.Uint32(head), key, value)
	})
}

// each calls fn with the entries of a page. Keys and values stand one after the
// other, without a gap, so that a damaged length or count shows.
func (w walk) each(p page, low, limit []byte, fn func(head, key, value []byte)) bool {
	place := fmt.Sprintf("page %d", p.id)
	end := pageHeader + p.count*element
	if end > len(p.data) {
		w.v.found("%s has %d entries", place, p.count)
		return false
	}
	var last []byte
	for i := range p.count {
		at := pageHeader + i*element
		head := p.data[at : at+element]
		pos, ksize, vsize := order.Uint32(head), order.Uint32(head[4:]), uint32(0)
		if p.flags == leafPage {
			pos, ksize, vsize = order.Uint32(head[4:]), order.Uint32(head[8:]), order.Uint32(head[12:])
		}
		size := uint64(ksize) + uint64(vsize)
		if uint64(at)+uint64(pos) != uint64(end) || ksize == 0 || size > uint64(len(p.data)-end) {
			w.v.found("%s: entry %d of %d does not follow the one before", place, i, p.count)
			return false
		}
		key := p.data[end : end+int(ksize)]
		value := p.data[end+int(ksize) : end+int(size)]
		end += int(size)
		switch {
		case i > 0 && bytes.Compare(key, last) <= 0, bytes.Compare(key, low) < 0, limit != nil && bytes.Compare(key, limit) >= 0:
			w.v.found("%s: the key of entry %d is out of order", place, i)
			return false
		}
		last = key
		fn(head, key, value)
	}
	return true
}
