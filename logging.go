package skiff

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lets raft, which logs to an hclog.Logger, log to a slog.Handler.
// It is immutable, so all methods may be called concurrently.
type raftLogger struct {
	root    slog.Handler // without name and implied
	handler slog.Handler // root with both
	name    string
	implied []any // alternating keys and values, as With has received them
}

func newRaftLogger(l *slog.Logger) hclog.Logger {
	return &raftLogger{root: l.Handler(), handler: l.Handler()}
}

func (l *raftLogger) derive(name string, implied []any) hclog.Logger {
	attrs := raftAttrs(implied)
	if name != "" {
		attrs = slices.Insert(attrs, 0, slog.String("logger", name))
	}
	return &raftLogger{root: l.root, handler: l.root.WithAttrs(attrs), name: name, implied: implied}
}

func (l *raftLogger) With(args ...any) hclog.Logger {
	return l.derive(l.name, slices.Concat(l.implied, args))
}

func (l *raftLogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.derive(name, l.implied)
}

func (l *raftLogger) ResetNamed(name string) hclog.Logger { return l.derive(name, l.implied) }

func (l *raftLogger) Name() string       { return l.name }
func (l *raftLogger) ImpliedArgs() []any { return slices.Clone(l.implied) }

func (l *raftLogger) Trace(msg string, args ...any) { l.log(hclog.Trace, msg, args) }
func (l *raftLogger) Debug(msg string, args ...any) { l.log(hclog.Debug, msg, args) }
func (l *raftLogger) Info(msg string, args ...any)  { l.log(hclog.Info, msg, args) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.log(hclog.Warn, msg, args) }
func (l *raftLogger) Error(msg string, args ...any) { l.log(hclog.Error, msg, args) }

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) { l.log(level, msg, args) }

func (l *raftLogger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *raftLogger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLogger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLogger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLogger) IsError() bool { return l.enabled(hclog.Error) }

// SetLevel does nothing: the level belongs to the slog.Handler.
func (l *raftLogger) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level that the handler lets through.
func (l *raftLogger) GetLevel() hclog.Level {
	for level := hclog.Trace; level < hclog.Off; level++ {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (l *raftLogger) enabled(level hclog.Level) bool {
	return level < hclog.Off && l.handler.Enabled(context.Background(), slogLevel(level))
}

// log has to be called directly by the method that raft calls: the record's source
// is the caller's caller.
func (l *raftLogger) log(level hclog.Level, msg string, args []any) {
	if !l.enabled(level) {
		return
	}
	var pc [1]uintptr
	runtime.Callers(3, pc[:])
	r := slog.NewRecord(time.Now(), slogLevel(level), msg, pc[0])
	r.AddAttrs(raftAttrs(args)...)
	_ = l.handler.Handle(context.Background(), r) // as slog.Logger does
}

// slogLevel relies on both sides' levels being evenly spaced: one apart in hclog,
// four in slog. hclog's Trace comes out at slog.LevelDebug-4.
func slogLevel(level hclog.Level) slog.Level {
	if level == hclog.NoLevel {
		return slog.LevelInfo
	}
	return slog.LevelInfo + 4*slog.Level(level-hclog.Info)
}

// raftAttrs pairs alternating keys and values.
func raftAttrs(args []any) []slog.Attr {
	attrs := make([]slog.Attr, 0, (len(args)+1)/2)
	for len(args) > 1 {
		attrs = append(attrs, slog.Attr{Key: fmt.Sprint(args[0]), Value: raftValue(args[1])})
		args = args[2:]
	}
	if len(args) == 1 {
		attrs = append(attrs, slog.Attr{Key: hclog.MissingKey, Value: raftValue(args[0])})
	}
	return attrs
}

// raftValue renders what hclog renders itself. Stringers are rendered at once,
// since raft passes pointers to live state, which a JSON handler would look into.
func raftValue(v any) slog.Value {
	value := slog.AnyValue(v)
	if value.Kind() != slog.KindAny {
		return value
	}
	switch v := v.(type) {
	case hclog.Format:
		if len(v) == 0 {
			return value
		}
		if format, ok := v[0].(string); ok {
			return slog.StringValue(fmt.Sprintf(format, v[1:]...))
		}
	case hclog.Hex:
		return slog.StringValue(fmt.Sprintf("0x%x", int(v)))
	case hclog.Octal:
		return slog.StringValue(fmt.Sprintf("0%o", int(v)))
	case hclog.Binary:
		return slog.StringValue(fmt.Sprintf("0b%b", int(v)))
	case fmt.Stringer:
		return slog.StringValue(fmt.Sprint(v)) // survives nil pointers
	}
	return value
}

func (l *raftLogger) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(opts), "", 0)
}

// StandardWriter returns a writer of lines such as "[WARN] message". The level is
// taken from the prefix, or Info, unless the options force one.
func (l *raftLogger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	w := lineWriter{to: l}
	if opts != nil {
		w.force = opts.ForceLevel
	}
	return w
}

type lineWriter struct {
	to    *raftLogger
	force hclog.Level // NoLevel: take the line's
}

func (w lineWriter) Write(line []byte) (int, error) {
	level, msg := splitLevel(strings.TrimSpace(string(line)))
	if w.force != hclog.NoLevel {
		level = w.force
	}
	w.to.log(level, msg, nil)
	return len(line), nil
}

func splitLevel(line string) (hclog.Level, string) {
	if rest, ok := strings.CutPrefix(line, "["); ok {
		if name, msg, ok := strings.Cut(rest, "]"); ok {
			if name == "ERR" {
				name = "ERROR"
			}
			if level := hclog.LevelFromString(name); hclog.NoLevel < level && level < hclog.Off {
				return level, strings.TrimSpace(msg)
			}
		}
	}
	return hclog.Info, line
}
