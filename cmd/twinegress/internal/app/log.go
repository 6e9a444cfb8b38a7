package app

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
)

// Levels are the values of --log-level, and Formats those of --log-format.
var (
	Levels  = []string{"debug", "info", "warn", "error"}
	Formats = []string{formatText, formatJSON}
)

const (
	formatText = "text"
	formatJSON = "json"
)

// LogOptions are how a process logs.
type LogOptions struct {
	Level  string // one of Levels
	Format string // one of Formats; "": text on a terminal, JSON elsewhere
}

// NewLogger returns a log on out. Its Sync writes what is folded.
func NewLogger(o LogOptions, out io.Writer) (*zap.Logger, error) {
	at, err := o.level()
	if err != nil {
		return nil, err
	}
	terminal := term.Open(out)
	format := o.Format
	if format == "" {
		if format = formatJSON; terminal != nil {
			format = formatText
		}
	}
	lowest := min(at, zap.InfoLevel) // an audit line is logged at each level
	var core zapcore.Core
	switch {
	case format == formatJSON:
		c := zap.NewProductionEncoderConfig()
		c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		c.EncodeDuration = zapcore.StringDurationEncoder
		core = zapcore.NewCore(zapcore.NewJSONEncoder(c), zapcore.Lock(zapcore.AddSync(out)), lowest)
	case format != formatText:
		return nil, fmt.Errorf("--log-format %s: must be text or json", o.Format)
	case terminal != nil:
		core = term.NewLogCore(terminal.Out, lowest, term.NewStyles(os.Getenv("NO_COLOR") == ""))
	default:
		core = term.NewLogCore(out, lowest, term.Styles{})
	}
	return wrapped(core, at), nil
}

// LoggerTo returns a log for a person on out, which may be a part of a screen.
func (o LogOptions) LoggerTo(out io.Writer) (*zap.Logger, error) {
	at, err := o.level()
	if err != nil {
		return nil, err
	}
	return wrapped(term.NewLogCore(out, min(at, zap.InfoLevel), term.Styles{}), at), nil
}

// wrapped returns the log of a core: fit to be shown, folded, from a level on. It is
// without sampling: there is no line per event, and an audit line must not be lost.
func wrapped(core zapcore.Core, at zapcore.Level) *zap.Logger {
	return zap.New(leveled{folding(fit{core}), at}, zap.ErrorOutput(zapcore.Lock(os.Stderr)))
}

// fit puts what errors say into a form that is fit to be shown. Of a service that is
// so already; brokers put words of theirs into errors, too, of any length.
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
		if field.Key == "err" { // the Kafka client's
			fields[i].Key = "error"
			field = fields[i]
		}
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
	if entry.Level < l.level && !isAudit(entry) {
		return checked
	}
	return l.Core.Check(entry, checked)
}

func (o LogOptions) level() (zapcore.Level, error) {
	at, err := zapcore.ParseLevel(o.Level)
	if err != nil {
		err = fmt.Errorf("--log-level %s: must be debug, info, warn or error", o.Level)
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
