// Package wire carries requests between nodes, and from remote clients to a
// node, over one net.Conn. It knows bytes, request ids and contexts; what a
// method or a payload means is the caller's business.
//
// A connection begins with a [Preface] from the dialer and a [PrefaceReply]
// from the listener. A connection whose kind is for requests is then handed to
// [NewConn], and both sides may call each other over it.
//
// # Layout
//
// All integers are big-endian. A string is a uint16 length, at most 1024, and
// that many bytes.
//
//	preface:  "skiff"  version byte  kind byte     cluster id [16]byte  from string  to string
//	reply:    "skiff"  version byte  refused byte  cluster id [16]byte  message string
//
// The magic and the version come first in both and stay there in every
// version, so that either side can tell a stranger from a node of another
// version before it reads anything else.
//
// After that both directions carry frames. The length counts what follows it.
//
//	frame:    length uint32  type byte  id uint64  ...
//	request:  ... method byte  payload
//	reply:    ... payload
//	error:    ... code uint16  message length uint32  message  detail
//	cancel:   ...
//
// An id names a request of the side that sent it, so the two directions use
// their ids independently. A request is answered by one reply or one error
// with its id, in any order, or by nothing once it has been cancelled. A reply,
// error or cancel with an id that is not known is ignored: it has crossed a
// cancel or a reply on the way.
//
// # Back-pressure
//
// A sender waits while the frames before its own fill the send buffer. A side
// that serves [Config.MaxServing] requests stops reading at the next one, so
// replies to its own calls wait behind that request too. Hence a handler that
// itself calls the peer over the same Conn may find every slot taken by handlers
// like itself; give such calls a deadline, or a connection of their own. For the
// same reason two sides that both have all their slots taken by handlers with large
// replies can wait for each other, until [Config.WriteTimeout] ends the connection.
package wire
