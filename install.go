package skiff

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/time/rate"

	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/storage"
)

// A state travels like this: from the leader a head, then the chunks that
// storage.Export writes; from the follower, when all of it is there and durable,
// a token. The head and the token are framed by writeSized.

// installHead announces a state.
type installHead struct {
	Marker storage.Marker
	Size   int64 // about as many bytes will come, for whoever watches
}

// maxInstallHead bounds the head, whose one large part is the configuration.
const maxInstallHead = 1 << 20

// installSource is a state to be sent. raft hands it to our transport.
type installSource struct {
	store  *snapshotStore
	view   *storage.Snapshot
	marker storage.Marker
	size   int64
	hold   *hold // on the entries that the follower needs next
}

func (s *snapshotStore) source() (*installSource, error) {
	// First, lest an entry goes from the log before it is held. raft begins with
	// the term of the one that the state is at.
	h := s.retaining.hold(s.fsm.applied.value())
	src, err := s.sourceHolding(h)
	if err != nil {
		h.release()
	}
	return src, err
}

func (s *snapshotStore) sourceHolding(h *hold) (*installSource, error) {
	live := s.fsm.store.Load()
	view, err := live.Snapshot()
	if err != nil {
		return nil, err
	}
	m, err := markerOf(view)
	if err != nil {
		view.Release()
		return nil, err
	}
	return &installSource{store: s, view: view, marker: m, size: live.Size(), hold: h}, nil
}

// Read is not used: only our transport sends a state.
func (*installSource) Read([]byte) (int, error) {
	return 0, errors.New("a state is sent by skiff's own transport only")
}

// Close ends the hold on the log unless somebody has taken it over.
func (src *installSource) Close() error {
	src.view.Release()
	if src.hold != nil {
		src.hold.release()
	}
	return nil
}

// send writes the state to a follower and returns the token for it.
func (src *installSource) send(ctx context.Context, to string, conn io.ReadWriter) ([]byte, error) {
	head, err := msgpack.Marshal(&installHead{src.marker, src.size})
	if err != nil {
		return nil, err
	}
	progress, end := src.store.progress(InstallProgress{Peer: to, Index: src.marker.Index, Total: src.size})
	defer end()
	w := bufio.NewWriterSize(&pacedWriter{ctx, conn, src.store.rate, func(n int) {
		src.hold.use()
		progress(n)
	}}, sendPiece)
	if err := writeSized(w, head); err != nil {
		return nil, err
	}
	if err := src.view.Export(w, src.store.chunkSize); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	for {
		token, err := readSized(conn, maxToken)
		if err != nil || len(token) > 0 {
			return token, err
		}
		src.hold.use() // it is still at work
	}
}

// receive imports a state that a leader sends, and answers with a token for it
// when it is whole, verified and synced. A transfer that is still under way ends.
func (s *snapshotStore) receive(from string, conn io.ReadWriteCloser) error {
	defer s.begin(conn)()
	r := bufio.NewReaderSize(conn, sendPiece)
	var head installHead
	encoded, err := readSized(r, maxInstallHead)
	if err == nil {
		err = message.Unmarshal(encoded, &head)
	}
	if err != nil {
		return fmt.Errorf("receive state: %w", err)
	}
	progress, end := s.progress(InstallProgress{Peer: from, Receiving: true, Index: head.Marker.Index, Total: head.Size})
	defer end()
	staged := &stagedState{token: randomHex(16), name: newStateName(), from: from, marker: head.Marker}
	stop := stillAtWork(conn)
	staged.store, err = storage.Import(s.root, staged.name, s.opts, meteredReader{r, progress}, head.Marker)
	stop()
	if err != nil {
		return errors.Join(err, s.root.Remove(staged.name))
	}
	if err := s.stage(staged); err != nil {
		return err
	}
	return writeSized(conn, []byte(staged.token))
}

// reception is a state that is being received.
type reception struct {
	conn io.Closer
	done chan struct{}
}

// begin makes this the one reception. It waits until an earlier one has ended, since
// each may have a whole state in memory or on disk.
func (s *snapshotStore) begin(conn io.Closer) (end func()) {
	t := &reception{conn, make(chan struct{})}
	s.mu.Lock()
	earlier := s.incoming
	s.incoming = t
	s.mu.Unlock()
	if earlier != nil {
		_ = earlier.conn.Close() // it hears so
		<-earlier.done
	}
	return func() { close(t.done) }
}

// stillAtWork tells the sender now and then that the receiver is at work: after the
// last byte has come, goleveldb may need its time.
func stillAtWork(w io.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(installStall / 6)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if writeSized(w, nil) != nil {
					return // the reader of the stream hears so too
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// progress returns a function that counts the bytes of a transfer and tells of them
// now and then. The transfer is under way until end is called.
func (s *snapshotStore) progress(p InstallProgress) (count func(n int), end func()) {
	const step = 1 << 20
	var told int64
	t := &Install{Peer: p.Peer, Receiving: p.Receiving, Index: p.Index, Total: p.Total}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transfers = append(s.transfers, t)
	count = func(n int) {
		s.mu.Lock()
		t.Bytes += int64(n)
		p.Bytes = t.Bytes
		s.mu.Unlock()
		if p.Bytes-told >= step {
			told = p.Bytes
			s.emit(p)
		}
	}
	end = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.transfers = slices.DeleteFunc(s.transfers, func(other *Install) bool { return other == t })
	}
	return count, end
}

// installs are the transfers under way, in the order in which they began.
func (s *snapshotStore) installs() []Install {
	s.mu.Lock()
	defer s.mu.Unlock()
	installs := make([]Install, len(s.transfers))
	for i, t := range s.transfers {
		installs[i] = *t
	}
	return installs
}

// sendPiece is how many bytes of a state are written at a time, and so the
// precision of the rate limit.
const sendPiece = 64 << 10

// pacedWriter writes no faster than a limiter allows.
type pacedWriter struct {
	ctx     context.Context
	w       io.Writer
	limiter *rate.Limiter
	written func(n int)
}

func (p *pacedWriter) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		piece := b[done:min(len(b), done+sendPiece)]
		if err := p.limiter.WaitN(p.ctx, len(piece)); err != nil {
			return done, err
		}
		n, err := p.w.Write(piece)
		done += n
		p.written(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// newRate returns a limiter for bytes per second.
func newRate(bytes int64) *rate.Limiter { return rate.NewLimiter(rate.Limit(bytes), sendPiece) }

// meteredReader tells of what is read.
type meteredReader struct {
	io.Reader
	read func(n int)
}

func (m meteredReader) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.read(n)
	return n, err
}

// writeSized and readSized frame the few short strings of an install, with a
// checksum.
func writeSized(w io.Writer, b []byte) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(b, castagnoli))
	_, err := w.Write(append(head, b...))
	return err
}

func readSized(r io.Reader, limit uint32) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return nil, fmt.Errorf("announced %d bytes where at most %d are allowed", n, limit)
	}
	var b bytes.Buffer // which grows as bytes arrive
	if _, err := io.CopyN(&b, r, int64(n)); errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	} else if err != nil {
		return nil, err
	}
	if crc32.Checksum(b.Bytes(), castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, errors.New("checksum of an announcement does not match")
	}
	return b.Bytes(), nil
}
