package skiff

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/wire"
)

// Token names a write whose outcome was unknown to its caller. It comes with the
// [Error], can be stored, and can be used by any process, through any node: with
// [DB.Resolve] and [Once].
//
// Ask soon. The cluster remembers the 1,024 sessions that wrote last, and each node and each
// client that writes has one, also a short-lived one; sessions that were silent for a
// million log entries are forgotten in any case. A writer keeps its last 64 proposals of
// unknown outcome (each has the writes that were waiting together), for ten minutes. After
// that the answer is [ErrSessionExpired].
type Token string

// A token is the cluster's id, the session and the number of the write in it.
func tokenOf(cluster wire.ClusterID, session, seq uint64) Token {
	return Token(fmt.Sprintf("%s-%d-%d", cluster, session, seq))
}

var errToken = errors.New("malformed token")

func (t Token) parse() (cluster wire.ClusterID, session, seq uint64, err error) {
	parts := strings.Split(string(t), "-")
	if len(parts) != 3 {
		return cluster, 0, 0, errToken
	}
	cluster, err = wire.ParseClusterID(parts[0])
	session, err1 := strconv.ParseUint(parts[1], 10, 64)
	seq, err2 := strconv.ParseUint(parts[2], 10, 64)
	if errors.Join(err, err1, err2) != nil || seq+1 == 0 || tokenOf(cluster, session, seq) != t {
		return cluster, 0, 0, errToken
	}
	return cluster, session, seq, nil
}

// Once makes a write happen at most once under token: if one has been applied or
// rejected under it, here or elsewhere, that is the outcome, and this one has no
// effect, whatever is in it. It is for repeating a write of unknown outcome without asking
// for it first. If the outcome is unknown again, the token is the same one; if it is
// forgotten ([ErrSessionExpired]), this write certainly has no effect, and what became of the
// first one is unknown for good. If [DB.Resolve] has said that it was not applied, the token is
// used up, and the error is [ErrRejected]; nothing is known of the first write if the error
// is another one of those, of this write alone, such as [ErrTooLarge].
func Once(token Token) Condition { return Condition{once: true, token: token} }

// Resolve tells what became of a write of unknown outcome. If the error is nil, it was
// applied, at the version that is returned. It is [ErrConflict] if a condition did not
// hold, or a transaction had lost a race, and [ErrNotApplied] if it was not applied; then it
// never will be, even if the command is still on its way. The version is one that no other
// write of a key has if the write was made by [DB.WriteIf] or its like. With [ErrUnknownOutcome] it is no
// clearer than before: because ctx has ended, or for good if the error is also
// [ErrSessionExpired]. What is no token, or one of another cluster, is neither.
func (db *DB) Resolve(ctx context.Context, token Token) (version uint64, err error) {
	if err := db.ok(); err != nil {
		return 0, err
	}
	r, err := db.backend.resolve(ctx, token)
	return r.version, db.wrap("resolve", err)
}

// repeat proposes a write under a token.
func (p *proposer) repeat(ctx context.Context, token Token, encoded []byte) (receipt, error) {
	r, err := p.decide(ctx, token, func(session, seq uint64) []byte {
		return command.EncodeWrites(session, seq, 0, nil, [][]byte{encoded})
	})
	switch {
	case errors.Is(err, ErrUnknownOutcome): // whatever it says beside
	case errors.Is(err, errToken), errors.Is(err, errOtherCluster):
		err = because(ErrRejected, err)
	case errors.Is(err, errCancelled): // and it would be again
		err = because(ErrRejected, errUsedUp)
	}
	return r, err
}

var errUsedUp = errors.New("the token is used up: somebody has asked for the outcome, and was told that there is none")

// resolve asks for the outcome of the write with a token.
func (p *proposer) resolve(ctx context.Context, token Token) (receipt, error) {
	return p.decide(ctx, token, command.EncodeResolve)
}

// decide sends a command about the write with a token until there is an answer.
func (p *proposer) decide(ctx context.Context, token Token, cmd func(session, seq uint64) []byte) (receipt, error) {
	cluster, session, seq, err := token.parse()
	if err != nil {
		return receipt{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })()

	var last error
	for n := 0; ; n++ {
		changed := p.router.leaderChanged()
		o, err := p.askFor(ctx, cluster, cmd(session, seq), seq)
		switch {
		case errors.Is(err, errOtherCluster):
			return receipt{}, err
		case err == nil:
			r, err := decided(o, seq, nil) // the write that came first may be another one
			if err == ErrSessionExpired {
				err = unknownOutcome(token, err)
			}
			return r, err
		case errors.Is(err, ErrTooLarge):
			return receipt{}, unknownOutcome(token, err)
		}
		last = moreTelling(last, err)
		if stop := p.retry.pause(ctx, n, changed); stop != nil {
			return receipt{}, unknownOutcome(token, gaveUp(stop, last))
		}
	}
}

var (
	errOtherCluster = errors.New("the token is of another cluster")
	errClusterID    = errors.New("the id of this cluster is not known yet")
)

// askFor makes one attempt to learn the outcome of one write.
func (p *proposer) askFor(ctx context.Context, cluster wire.ClusterID, cmd []byte, seq uint64) (command.Outcome, error) {
	switch mine := p.cluster(); {
	case cluster == mine, cluster.IsZero(): // zero: who made the token did not know
	case mine.IsZero():
		return command.Outcome{}, errClusterID
	default:
		return command.Outcome{}, fmt.Errorf("%w: %s, this is %s", errOtherCluster, cluster, mine)
	}
	one := command.Span{First: seq, Count: 1}
	res, err := p.router.send(ctx, cmd)
	switch {
	case err != nil:
		return command.Outcome{}, err
	case res.Status == command.StatusNoSession:
		return command.Outcome{Span: one, Status: command.StatusForgotten}, nil
	case !covers(res.Outcomes, one):
		return command.Outcome{}, fmt.Errorf("%w: a result that does not tell of the write", errMalformed)
	}
	return res.Outcomes[0], nil
}
