package app

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

// Levels are the values of --log-level.
var Levels = []string{"debug", "info", "warn", "error"}

// NewLogger returns a log in JSON on out, for a process that runs unattended.
func NewLogger(level string, out io.Writer) (*zap.Logger, error) {
	at, err := ParseLevel(level)
	if err != nil {
		return nil, err
	}
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	c.EncodeDuration = zapcore.StringDurationEncoder
	// Without sampling: there is no line per event, and an audit line must not be
	// lost.
	core := zapcore.NewCore(zapcore.NewJSONEncoder(c), zapcore.Lock(zapcore.AddSync(out)), min(at, zap.InfoLevel))
	return zap.New(leveled{fit{core}, at}, zap.ErrorOutput(zapcore.Lock(os.Stderr))), nil
}

// Fit returns a log in which what errors say is fit to be shown. Of a service that is
// so already; brokers put words of theirs into errors, too, of any length.
func Fit(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return fit{core} }))
}

type fit struct{ zapcore.Core }

func (f fit) With(fields []zapcore.Field) zapcore.Core { return fit{f.Core.With(fitted(fields))} }

func (f fit) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if f.Enabled(entry.Level) {
		return checked.AddCore(entry, f)
	}
	return checked
}

func (f fit) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return f.Core.Write(entry, fitted(fields))
}

// fitted returns the fields with a text in place of each error. Lines of one are
// joined errors.
func fitted(fields []zapcore.Field) []zapcore.Field {
	fields = slices.Clone(fields) // they are the caller's
	for i, field := range fields {
		if err, is := field.Interface.(error); is && field.Type == zapcore.ErrorType {
			fields[i] = zap.String(field.Key, untrusted.Text(strings.ReplaceAll(err.Error(), "\n", " ")))
		}
	}
	return fields
}

// leveled drops lines below its level, except audit lines.
type leveled struct {
	zapcore.Core
	level zapcore.Level
}

func (l leveled) With(fields []zapcore.Field) zapcore.Core {
	return leveled{l.Core.With(fields), l.level}
}

func (l leveled) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Level < l.level && !strings.HasSuffix(entry.LoggerName, "."+api.AuditLog) {
		return checked
	}
	return l.Core.Check(entry, checked)
}

// ParseLevel parses the value of --log-level.
func ParseLevel(level string) (zapcore.Level, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		err = fmt.Errorf("--log-level %s: must be debug, info, warn or error", level)
	}
	return at, err
}

// RedirectStandardLog sends what libraries write to Go's standard log to log, up to
// what they quote, until restore is called: net/http shows the bytes of an answer
// that nobody asked for there, and a service may have put a key in them.
func RedirectStandardLog(log *zap.Logger) (restore func()) {
	return zap.RedirectStdLog(log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return unquoted{core} })))
}

// unquoted drops what is quoted in a message, and all behind it.
type unquoted struct{ zapcore.Core }

func (u unquoted) With(fields []zapcore.Field) zapcore.Core { return unquoted{u.Core.With(fields)} }

func (u unquoted) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	message, _, quotes := strings.Cut(entry.Message, `"`)
	if quotes {
		message += "…"
	}
	entry.Message = untrusted.Text(message)
	return u.Core.Check(entry, checked)
}
