package app

import (
	"fmt"
	"io"
	"os"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

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
	return zap.New(leveled{core, at}, zap.ErrorOutput(zapcore.Lock(os.Stderr))), nil
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
