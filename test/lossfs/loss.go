package lossfs

import "math/rand/v2"

// loss is what a crash does to that which was not synced.
type loss struct {
	name  string
	file  func(*rand.Rand, *file)
	names func(*rand.Rand) (keep bool)
}

var losses = []loss{
	// A process that is killed loses nothing.
	{"nothing is lost", keepFile, keepNames},
	// The harshest power loss, and its halves.
	{"all is lost", loseFile, loseNames},
	{"data is lost", loseFile, keepNames},
	{"names are lost", keepFile, loseNames},
	// Files, directories and pages are written back in any order.
	{"some files are lost", tossFile, tossNames},
	{"ends are lost", loseEnd, tossNames},
	{"pages are lost", losePages, tossNames},
	{"pages are torn", tearPages, tossNames},
}

func keepNames(*rand.Rand) bool   { return true }
func loseNames(*rand.Rand) bool   { return false }
func tossNames(r *rand.Rand) bool { return r.IntN(2) == 0 }

func keepFile(*rand.Rand, *file) {}

func loseFile(_ *rand.Rand, f *file) {
	for _, i := range f.changed() {
		f.put(i, f.durable(i))
	}
	f.size = f.syncedSize
}

func tossFile(r *rand.Rand, f *file) {
	if r.IntN(2) == 0 {
		loseFile(r, f)
	}
}

// loseEnd loses all changes from one place on, as when a file that is only appended to
// ends early.
func loseEnd(r *rand.Rand, f *file) {
	changed := f.changed()
	if len(changed) == 0 {
		return
	}
	kept := r.IntN(len(changed) + 1)
	for _, i := range changed[kept:] {
		f.put(i, f.durable(i))
	}
	if f.size > f.syncedSize {
		f.size = f.syncedSize + r.Int64N(f.size-f.syncedSize+1)
	}
}

// losePages loses each change or not. The size is that of before or after.
func losePages(r *rand.Rand, f *file) {
	for _, i := range f.changed() {
		if r.IntN(2) == 0 {
			f.put(i, f.durable(i))
		}
	}
	if r.IntN(2) == 0 {
		f.size = f.syncedSize
	}
}

// tearPages does as losePages to the sectors of pages.
func tearPages(r *rand.Rand, f *file) {
	const sector = 512
	for _, i := range f.changed() {
		var torn, old page
		if p := f.pages[i]; p != nil {
			torn = *p
		}
		if p := f.durable(i); p != nil {
			old = *p
		}
		for at := 0; at < pageSize; at += sector {
			if r.IntN(2) == 0 {
				copy(torn[at:at+sector], old[at:])
			}
		}
		f.put(i, &torn)
	}
	if r.IntN(2) == 0 {
		f.size = f.syncedSize
	}
}
