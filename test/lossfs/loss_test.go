package lossfs

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Each case tells all that a crash may leave. Content is told in pages: of one letter,
// '.' of zeros, '%' torn, '|' one that ends early.
func TestWhatSurvivesACrash(t *testing.T) {
	for name, test := range map[string]struct {
		do    func(s *script)
		leave []string
	}{
		"nothing": {func(*script) {}, []string{""}},
		"all is synced": {
			func(s *script) { s.create("a"); s.write("a", 0, "A"); s.sync("a"); s.syncNames() },
			[]string{"a=A"},
		},
		"names are synced before content": {
			func(s *script) { s.create("a"); s.write("a", 0, "A"); s.syncNames() },
			[]string{"a=", "a=A", "a=.", "a=%", "a=|"},
		},
		"content is synced, the name is not": {
			func(s *script) { s.create("a"); s.write("a", 0, "A"); s.sync("a") },
			[]string{"", "a=A"},
		},
		"appended": {
			func(s *script) { s.durable("a", "A"); s.write("a", 1, "B") },
			[]string{"a=A", "a=AB", "a=A.", "a=A%", "a=A|"},
		},
		"overwritten": {
			func(s *script) { s.durable("a", "AB"); s.write("a", 0, "C") },
			[]string{"a=AB", "a=CB", "a=%B"},
		},
		"overwritten again": {
			func(s *script) { s.durable("a", "A"); s.write("a", 0, "B"); s.write("a", 0, "C") },
			[]string{"a=A", "a=C", "a=%"},
		},
		"cut off": {
			func(s *script) { s.durable("a", "AB"); s.truncate("a", 1) },
			[]string{"a=A", "a=AB", "a=A.", "a=A%"},
		},
		"cut off, synced": {
			func(s *script) { s.durable("a", "AB"); s.truncate("a", 1); s.sync("a") },
			[]string{"a=A"},
		},
		"renamed": {
			func(s *script) { s.durable("a", "A"); s.rename("a", "b") },
			[]string{"a=A", "b=A"},
		},
		"replaced": {
			func(s *script) { s.durable("a", "A"); s.durable("b", "B"); s.rename("b", "a") },
			[]string{"a=A b=B", "a=B"},
		},
		"replaced by what is new": {
			func(s *script) {
				s.durable("a", "A")
				s.create("b")
				s.write("b", 0, "B")
				s.sync("b")
				s.rename("b", "a")
			},
			[]string{"a=A", "a=B", "a=A b=B"},
		},
		"pages of the same file": {
			func(s *script) { s.durable("a", "AB"); s.write("a", 0, "CD"); s.only("pages are lost") },
			[]string{"a=AB", "a=CD", "a=AD", "a=CB"},
		},
		"removed": {
			func(s *script) { s.durable("a", "A"); s.unlink("a") },
			[]string{"a=A", ""},
		},
		"removed, synced": {
			func(s *script) { s.durable("a", "A"); s.unlink("a"); s.syncNames() },
			[]string{""},
		},
		// The kernel has forgotten that pages are to be written.
		"a sync fails, the next does not": {
			func(s *script) {
				s.durable("a", "A")
				s.write("a", 0, "B")
				s.failSync("a")
				s.sync("a")
			},
			[]string{"a=A", "a=B", "a=%"},
		},
		"a sync fails, and what is written again is synced": {
			func(s *script) {
				s.durable("a", "A")
				s.write("a", 0, "B")
				s.failSync("a")
				s.write("a", 0, "B")
				s.sync("a")
			},
			[]string{"a=B"},
		},
		"syncs are ignored": {
			func(s *script) {
				s.d.trouble.ignore = true
				s.create("a")
				s.write("a", 0, "A")
				s.sync("a")
				s.syncNames()
			},
			[]string{"", "a=", "a=A", "a=.", "a=%", "a=|"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			left := map[string]bool{}
			for seed := range uint64(50) {
				for _, l := range losses {
					d := newDisk(seed)
					s := &script{t: t, d: d}
					if test.do(s); s.loss != "" && s.loss != l.name {
						continue
					}
					d.crash(l)
					first := d.show()
					d.crash(losses[seed%uint64(len(losses))])
					if again := d.show(); again != first {
						t.Fatalf("after %s: %q, and after another crash %q", l, first, again)
					}
					left[first] = true
				}
			}
			slices.Sort(test.leave)
			if got := slices.Sorted(maps.Keys(left)); !slices.Equal(got, test.leave) {
				t.Errorf("leaves %q, want %q", got, test.leave)
			}
		})
	}
}

// script does what works.
type script struct {
	t    *testing.T
	d    *disk
	loss string // the only kind that there may be; "": any
}

func (s *script) only(loss string) { s.loss = loss }

func (s *script) ok(failure syscall.Errno) {
	s.t.Helper()
	if failure != 0 {
		s.t.Fatal(failure)
	}
}

func (s *script) create(name string) {
	s.t.Helper()
	_, failure := s.d.create(s.d.root.dir, name, 0o600)
	s.ok(failure)
}

func (s *script) file(name string) *entry { return s.d.lookup(s.d.root.dir, name) }

// write writes pages, each of a letter.
func (s *script) write(name string, from int64, letters string) {
	s.t.Helper()
	for i, l := range []byte(letters) {
		p := bytes.Repeat([]byte{l}, pageSize)
		s.ok(s.d.write(s.file(name).file, p, (from+int64(i))*pageSize))
	}
}

func (s *script) truncate(name string, pages int64) {
	s.t.Helper()
	s.ok(s.d.truncate(s.file(name).file, pages*pageSize))
}

func (s *script) sync(name string) { s.t.Helper(); s.ok(s.d.sync(s.file(name))) }
func (s *script) syncNames()       { s.t.Helper(); s.ok(s.d.sync(s.d.root)) }

func (s *script) failSync(name string) {
	s.t.Helper()
	s.d.trouble.failSyncs = true
	if failure := s.d.sync(s.file(name)); failure != syscall.EIO {
		s.t.Fatal(failure)
	}
	s.d.trouble.failSyncs = false
}

func (s *script) rename(name, newName string) {
	s.t.Helper()
	s.ok(s.d.rename(s.d.root.dir, name, s.d.root.dir, newName, 0))
}

func (s *script) unlink(name string) { s.t.Helper(); s.ok(s.d.unlink(s.d.root.dir, name)) }

// durable makes a file that stays.
func (s *script) durable(name, letters string) {
	s.t.Helper()
	s.create(name)
	s.write(name, 0, letters)
	s.sync(name)
	s.syncNames()
}

// show tells what is on the disk.
func (d *disk) show() string {
	var files []string
	names, entries := d.list(d.root.dir)
	for i, e := range entries {
		content := make([]byte, d.size(e.file))
		d.read(e.file, content, 0)
		var pages strings.Builder
		for p := range slices.Chunk(content, pageSize) {
			pages.WriteByte(letter(p))
		}
		files = append(files, names[i]+"="+pages.String())
	}
	return strings.Join(files, " ")
}

func letter(page []byte) byte {
	switch {
	case len(page) < pageSize:
		return '|'
	case !bytes.Equal(page, bytes.Repeat(page[:1], pageSize)):
		return '%'
	case page[0] == 0:
		return '.'
	}
	return page[0]
}
