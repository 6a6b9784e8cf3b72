package datadir

import (
	"io"
	"testing"
)

// Each error says what is wrong and what to do.
func TestErrorTexts(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&InUseError{"/d", "pid 1, /unix/a"}, `data directory /d: in use by pid 1, /unix/a`},
		{&MismatchError{"/d", "format", "2", "1"}, `data directory /d: has format "2", not "1"; run the version of skiff that wrote it`},
		{&MismatchError{"/d", "address", "/unix/a", "/unix/b"}, `data directory /d: has address "/unix/a", not "/unix/b"; start the node with its own address, or say that it has moved (MovedFrom, --moved-from)`},
		{&MismatchError{"/d", "log store", "bolt", "wal"}, `data directory /d: has log store "bolt", not "wal"; open it with its own log store, or let the node join again with an empty directory`},
		{&MismatchError{"/d", "cluster id", "ab", "cd"}, `data directory /d: has cluster id "ab", not "cd"; join the cluster that it belongs to, or use another directory`},
		{&CorruptError{"/d/skiff.json", io.ErrUnexpectedEOF}, `/d/skiff.json is damaged: unexpected EOF; restore it from a backup, or let the node join again with an empty directory`},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("%T:\n got %s\nwant %s", test.err, got, test.want)
		}
	}
}
