package skiff

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// newTextLogger logs to out without times.
func newTextLogger(out *bytes.Buffer, level slog.Level) hclog.Logger {
	dropTime := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return newRaftLogger(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: dropTime})))
}

// liveState stands for the pointers to itself that raft logs.
type liveState struct{ Secret string }

func (s *liveState) String() string { return "Node at " + s.Secret[:1] }

func TestRaftLogger(t *testing.T) {
	type call = func(l hclog.Logger)
	var nobody *liveState
	for _, test := range []struct {
		call call
		want string
	}{
		{func(l hclog.Logger) { l.Trace("a") }, `level=DEBUG-4 msg=a`},
		{func(l hclog.Logger) { l.Debug("a") }, `level=DEBUG msg=a`},
		{func(l hclog.Logger) { l.Info("a b") }, `level=INFO msg="a b"`},
		{func(l hclog.Logger) { l.Warn("a") }, `level=WARN msg=a`},
		{func(l hclog.Logger) { l.Error("a", "error", errors.New("b")) }, `level=ERROR msg=a error=b`},
		{func(l hclog.Logger) { l.Log(hclog.Warn, "a") }, `level=WARN msg=a`},
		{func(l hclog.Logger) { l.Log(hclog.NoLevel, "a") }, `level=INFO msg=a`},
		{func(l hclog.Logger) { l.Log(hclog.Off, "a") }, ``},

		{func(l hclog.Logger) { l.Info("a", "term", 1, "took", time.Second) }, `level=INFO msg=a term=1 took=1s`},
		{func(l hclog.Logger) { l.Info("a", "got", hclog.Fmt("%d / %d", 1, 2)) }, `level=INFO msg=a got="1 / 2"`},
		{func(l hclog.Logger) { l.Info("a", "got", hclog.Format{}) }, `level=INFO msg=a got=[]`},
		{func(l hclog.Logger) { l.Info("a", "got", hclog.Format{7, 8}) }, `level=INFO msg=a got="[7 8]"`},
		{func(l hclog.Logger) { l.Info("a", "x", hclog.Hex(17), "o", hclog.Octal(17), "b", hclog.Binary(5)) }, `level=INFO msg=a x=0x11 o=021 b=0b101`},
		{func(l hclog.Logger) { l.Info("a", "follower", &liveState{"xyz"}) }, `level=INFO msg=a follower="Node at x"`},
		{func(l hclog.Logger) { l.Info("a", "follower", nobody) }, `level=INFO msg=a follower=<nil>`},
		{func(l hclog.Logger) { l.Info("a", "nothing", nil) }, `level=INFO msg=a nothing=<nil>`},
		{func(l hclog.Logger) { l.Info("a", 1, 2) }, `level=INFO msg=a 1=2`},
		{func(l hclog.Logger) { l.Info("a", "b", 1, "c") }, `level=INFO msg=a b=1 EXTRA_VALUE_AT_END=c`},

		{func(l hclog.Logger) { l.With("id", 1).With("b", 2).Info("a", "c", 3) }, `level=INFO msg=a id=1 b=2 c=3`},
		{func(l hclog.Logger) { l.Named("raft").Info("a") }, `level=INFO msg=a logger=raft`},
		{func(l hclog.Logger) { l.Named("raft").With("b", 1).Named("fsm").Info("a") }, `level=INFO msg=a logger=raft.fsm b=1`},
		{func(l hclog.Logger) { l.Named("raft").ResetNamed("fsm").Info("a") }, `level=INFO msg=a logger=fsm`},
		{func(l hclog.Logger) { l.Named("raft").ResetNamed("").Info("a") }, `level=INFO msg=a`},

		{func(l hclog.Logger) { l.StandardLogger(nil).Print("a") }, `level=INFO msg=a`},
		{func(l hclog.Logger) { l.StandardLogger(nil).Print("[WARN] a: b") }, `level=WARN msg="a: b"`},
		{func(l hclog.Logger) { l.StandardLogger(nil).Print("[ERR] a") }, `level=ERROR msg=a`},
		{func(l hclog.Logger) { l.StandardLogger(nil).Print("[::1]:80 [WARN]") }, `level=INFO msg="[::1]:80 [WARN]"`},
		{func(l hclog.Logger) { l.StandardLogger(nil).Print("[OFF] a") }, `level=INFO msg="[OFF] a"`},
		{func(l hclog.Logger) {
			l.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}).Print("[WARN] a")
		}, `level=DEBUG msg=a`},
	} {
		var out bytes.Buffer
		test.call(newTextLogger(&out, slog.LevelDebug-4))
		if got := strings.TrimSuffix(out.String(), "\n"); got != test.want {
			t.Errorf("logged %s, want %s", got, test.want)
		}
	}
}

// The level is the handler's, and may change under the logger.
func TestRaftLoggerLevel(t *testing.T) {
	var out bytes.Buffer
	for level := hclog.Trace; level <= hclog.Off; level++ {
		l := newTextLogger(&out, slogLevel(level))
		l.SetLevel(hclog.Trace) // does nothing
		if got := l.GetLevel(); got != level {
			t.Errorf("GetLevel = %v, want %v", got, level)
		}
		for is, got := range map[hclog.Level]bool{
			hclog.Trace: l.IsTrace(), hclog.Debug: l.IsDebug(), hclog.Info: l.IsInfo(), hclog.Warn: l.IsWarn(), hclog.Error: l.IsError(),
		} {
			if want := is >= level; got != want {
				t.Errorf("at %v: %v enabled = %v", level, is, got)
			}
		}
	}
	newTextLogger(&out, slog.LevelError).Warn("a")
	if out.Len() > 0 {
		t.Errorf("logged %s, want nothing", &out)
	}
}

func TestRaftLoggerImplied(t *testing.T) {
	l := newTextLogger(new(bytes.Buffer), 0).Named("raft")
	parent := l.With("id", 1)
	l.With("other", 2)
	parent.ImpliedArgs()[0] = "changed"
	if args := parent.ImpliedArgs(); len(args) != 2 || args[0] != "id" || args[1] != 1 || parent.Name() != "raft" {
		t.Errorf("ImpliedArgs = %v, Name = %s", args, parent.Name())
	}
}

// recorder keeps the last record.
type recorder struct {
	slog.Handler
	last slog.Record
}

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	r.last = record
	return nil
}

func TestRaftLoggerSource(t *testing.T) {
	r := &recorder{Handler: slog.NewTextHandler(new(bytes.Buffer), nil)}
	l := newRaftLogger(slog.New(r))
	for name, call := range map[string]func(){
		"Warn": func() { l.Warn("a") },
		"Log":  func() { l.Log(hclog.Warn, "a") },
	} {
		call()
		if file := r.last.Source().File; !strings.HasSuffix(file, "logging_test.go") {
			t.Errorf("%s: source is %s, want this file", name, file)
		}
	}
}
