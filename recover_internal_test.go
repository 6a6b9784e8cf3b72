package skiff

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/simdisk"
	"github.com/skiffdb/skiff/internal/storage"
)

// A crashDisk has skiff.json beside term and vote: like those it is durable at once.
const diskIdentity = "skiff.json"

func (d *crashDisk) identity(t *testing.T) datadir.Identity {
	t.Helper()
	id := datadir.Identity{Address: realNode}
	if data, err := (diskStable{d}).Get([]byte(diskIdentity)); err == nil {
		noError(t, json.Unmarshal(data, &id))
	}
	return id
}

func (d *crashDisk) setIdentity(t *testing.T, id datadir.Identity) error {
	t.Helper()
	data, err := json.Marshal(id)
	noError(t, err)
	return diskStable{d}.Set([]byte(diskIdentity), data)
}

// openCrashRecovery does as openRecovery, on a crashDisk.
func openCrashRecovery(t *testing.T, disk *crashDisk, o *opt.Options) *recovery {
	t.Helper()
	store, err := openState(disk, o)
	noError(t, err)
	id := disk.identity(t)
	r := &recovery{
		self: realNode, store: store, stable: diskStable{disk}, close: store.Close,
		log: newRaftLog(newRetainingLog(checkedLog{diskLog{disk}, "disk/raft/log"}, retention{})),
		begin: func(p datadir.Recovery) error {
			id.Recovery = &p
			return disk.setIdentity(t, id)
		},
		end: func() error {
			return disk.setIdentity(t, datadir.Identity{Address: realNode, ClusterID: id.Recovery.ClusterID})
		},
	}
	noError(t, r.prepare(id))
	return r
}

// run takes the first n steps, and closes.
func (r *recovery) run(t *testing.T, n int) {
	t.Helper()
	for _, step := range r.steps()[:n] {
		noError(t, step(t.Context()))
	}
	noError(t, r.close())
}

// recovered is a disk on which a life has been recovered.
type recovered struct {
	*life // the old one
	disk  *crashDisk
	plan  datadir.Recovery
}

func (l *life) recover(t *testing.T, from *diskImage) *recovered {
	t.Helper()
	r := &recovered{life: l, disk: newCrashDisk(from)}
	recovery := openCrashRecovery(t, r.disk, l.options)
	r.plan = recovery.plan
	recovery.run(t, len(recovery.steps()))
	return r
}

// expected lists what the new cluster begins with.
func (r *recovered) expected(t *testing.T) []string {
	t.Helper()
	list := slices.Clone(r.life.expected(t, r.plan.Index-1))
	id, err := hex.DecodeString(r.plan.ClusterID)
	noError(t, err)
	list[0] = replicaHead(storage.Position{Index: r.plan.Index, Term: r.plan.Term}, r.plan.Index, id)
	return list
}

// after checks what is left after a crash, and completes the recovery if it had
// begun. It reports which.
func (r *recovered) after(t *testing.T, left *diskImage) (what string, resumed *crashDisk) {
	t.Helper()
	disk := newCrashDisk(left)
	switch id := disk.identity(t); {
	case id.Recovery != nil:
		again := openCrashRecovery(t, disk, r.options)
		if !reflect.DeepEqual(again.plan, r.plan) {
			t.Errorf("the plan was %+v, and is %+v", r.plan, again.plan)
		}
		again.run(t, len(again.steps()))
		r.checkNew(t, disk)
		return "begun", disk
	case id.ClusterID == r.plan.ClusterID:
		r.checkNew(t, disk)
		return "done", nil
	default:
		n, err := openCrashNode(disk, disk, r.options)
		noError(t, err)
		n.check(t, r.life, r.latest())
		if applied := n.fsm.applied.value(); applied > r.plan.Applied {
			t.Errorf("the old node has applied %d, and had %d", applied, r.plan.Applied)
		}
		n.close(t)
		return "old", nil
	}
}

// checkNew starts the new cluster, with a copy of what is on the disk.
func (r *recovered) checkNew(t *testing.T, on *crashDisk) {
	t.Helper()
	disk := newCrashDisk(on.image.crash(rand.New(rand.NewPCG(1, 2)), simdisk.Losses[1]))
	if id := disk.identity(t); id != (datadir.Identity{Address: realNode, ClusterID: r.plan.ClusterID}) {
		t.Errorf("the identity is %+v", id)
	}
	n, err := openCrashNode(disk, disk, r.options)
	noError(t, err)
	defer n.close(t)
	if got, want := listState(t, n.fsm.store.Load()), r.expected(t); !slices.Equal(got, want) {
		t.Errorf("the state is not what all entries leave: %s", difference(got, want))
	}
	if len(disk.image.log) > 0 {
		t.Errorf("the log has entries from %d to %d", disk.image.firstIndex(), disk.image.lastIndex())
	}
	n.start(t, memnet.New(), crashConfig(t))
	n.lead(t)
	write := n.raft.ApplyLog(raft.Log{Data: command.EncodeRegister()}, 0)
	noError(t, write.Error())
	if write.Index() <= r.plan.Index || disk.image.firstIndex() <= r.plan.Index || n.raft.CurrentTerm() <= r.plan.Term {
		t.Errorf("a write is at %d of term %d, and the new cluster begins at %d of term %d", write.Index(), n.raft.CurrentTerm(), r.plan.Index, r.plan.Term)
	}
}

// Wherever a recovery is interrupted, it leaves the old node as it was, or what
// another run completes, or the new cluster. Nothing that stood in the log is lost,
// and with it no session and no version.
func TestARecoveryIsInterrupted(t *testing.T) {
	t.Parallel()
	for name, live := range map[string]func(*testing.T) *life{
		"a leader":   func(t *testing.T) *life { return leaderLife(t, onDisk, manyJournals()) },
		"a follower": func(t *testing.T) *life { return followerLife(t, onDisk, largeJournals()) },
	} {
		for _, before := range simdisk.Losses[:2] {
			t.Run(name+", "+before.Name, func(t *testing.T) {
				t.Parallel()
				l := live(t)
				rnd := crashRand(t)
				from := l.imageAt(l.latest().moment).crash(rnd, before) // it is killed
				r := l.recover(t, from)
				if r.plan.Unapplied == 0 && (name == "a follower" || before.Name != simdisk.Losses[0].Name) {
					t.Error("nothing in the log was unapplied, so little is tested")
				}
				now, counts := from.clone(), map[string]int{}
				// Of many moments, the first, the last, and some between.
				const enough = 50
				often := max(1, len(r.disk.changes)/enough)
				for moment := range len(r.disk.changes) + 1 {
					if moment > 0 {
						r.disk.changes[moment-1].do(now)
					}
					if moment > 0 && moment < len(r.disk.changes) && rnd.IntN(often) > 0 {
						continue
					}
					for _, loss := range simdisk.Losses {
						what, resumed := r.after(t, now.crash(rnd, loss))
						counts[what]++
						if resumed != nil { // and may be interrupted again
							again := resumed.start.clone()
							for _, c := range resumed.changes[:rnd.IntN(len(resumed.changes)+1)] {
								c.do(again)
							}
							r.after(t, again.crash(rnd, loss))
						}
						if t.Failed() {
							last := "nothing"
							if moment > 0 {
								last = r.disk.changes[moment-1].what
							}
							t.Fatalf("after a crash at %d of %d, the last change: %s; %s", moment, len(r.disk.changes), last, loss.Name)
						}
					}
				}
				t.Logf("%d entries were not applied, %d changes, %v", r.plan.Unapplied, len(r.disk.changes), counts)
				if counts["old"] == 0 || counts["begun"] == 0 || counts["done"] == 0 {
					t.Error("not all three were tried")
				}
			})
		}
	}
}

// On a real disk, too, a recovery can end after each step. No node starts then, and
// the directory tells why, until the recovery has been run again.
func TestARecoveryIsRunAgain(t *testing.T) {
	t.Parallel()
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		for after := 1; after < len((&recovery{}).steps()); after++ {
			t.Run(fmt.Sprintf("%s, after step %d", kind, after), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					o := Options{
						Dir: filepath.Join(t.TempDir(), "node"), LogStore: kind,
						Transport: memnet.New().Host(realNode), HeartbeatTimeout: 50 * time.Millisecond,
					}
					liveShortly(t, o)
					d, err := datadir.OpenExisting(o.Dir)
					noError(t, err)
					r, err := openRecovery(d)
					noError(t, err)
					r.run(t, after)
					noError(t, d.Close())

					n, err := New(realNode, o)
					noError(t, err)
					if err := n.Start(t.Context()); !errors.Is(err, ErrRecovering) {
						t.Errorf("start: %v, want ErrRecovering", err)
					}
					check, err := Check(t.Context(), o.Dir)
					if err != nil || len(check.Problems) != 1 || !check.Problems[0].Recovering {
						t.Errorf("check: %+v, %v", check, err)
					}
					report, err := Recover(t.Context(), o.Dir)
					if err != nil || !reflect.DeepEqual(report, r.report(o.Dir)) {
						t.Errorf("got %+v, %v, want %+v", report, err, r.report(o.Dir))
					}
					n = startedNode(t, t.Context(), realNode, o)
					if v, err := n.DB().Get([]byte("k"), nil); err != nil || string(v) != "v" {
						t.Errorf("got %q, %v", v, err)
					}
					if s := n.Stats(); s.ClusterID != report.ClusterID {
						t.Errorf("%+v, and recovered was %+v", s, report)
					}
				})
			})
		}
	}
}

// liveShortly starts a node, writes a key and ends.
func liveShortly(t *testing.T, o Options) {
	t.Helper()
	n, err := New(realNode, o)
	noError(t, err)
	noError(t, n.Start(t.Context()))
	noError(t, n.DB().Put([]byte("k"), []byte("v"), nil))
	noError(t, n.Stop(t.Context()))
}

// A directory is not recovered in which no configuration has the node.
func TestADirectoryThatWasNeverAMembers(t *testing.T) {
	t.Parallel()
	elsewhere := agreedAt(1)
	elsewhere.Data = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: scriptedNode, Address: scriptedNode}}})
	for _, test := range []struct {
		name    string
		entries []*raft.Log
		want    string
	}{
		{"a configuration of others", []*raft.Log{elsewhere, agreedAt(2)}, scriptedNode},
		{"removed again", []*raft.Log{agreedAt(1), {Index: 2, Term: 1, Type: raft.LogConfiguration, Data: elsewhere.Data}}, ""},
		{"what cannot be applied", []*raft.Log{agreedAt(1), {Index: 2, Term: 1, Data: []byte("from the future")}}, "log entry 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "node")
			d, err := datadir.Open(dir, realNode, string(LogStoreBolt))
			noError(t, err)
			noError(t, d.Close())
			stores, err := openRaftStores(filesIn(filepath.Join(dir, "raft"), LogStoreBolt), keepOne, nil)
			noError(t, err)
			noError(t, stores.stable.SetUint64(keyCurrentTerm, 1))
			noError(t, stores.log.StoreLogs(test.entries))
			noError(t, stores.close())
			identity, err := os.ReadFile(filepath.Join(dir, "skiff.json"))
			noError(t, err)

			report, err := Recover(t.Context(), dir)
			switch {
			case test.want == "":
				if err != nil || !slices.Equal(report.OldMembers, []string{scriptedNode}) || report.Unapplied != 2 {
					t.Errorf("got %+v, %v", report, err)
				}
				return
			case err == nil || !bytes.Contains([]byte(err.Error()), []byte(test.want)):
				t.Errorf("got %v, want an error about %s", err, test.want)
			case errors.Is(err, ErrNotMember) != (test.want == scriptedNode):
				t.Errorf("is %v ErrNotMember?", err)
			}
			if after, err := os.ReadFile(filepath.Join(dir, "skiff.json")); err != nil || !bytes.Equal(after, identity) {
				t.Errorf("skiff.json was %s and is %s, %v", identity, after, err)
			}
		})
	}
}
