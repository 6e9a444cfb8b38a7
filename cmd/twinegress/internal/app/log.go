package app

import (
	"fmt"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/server/api"
)

// Levels are those of a log, for --log-level.
var Levels = []string{"debug", "info", "warn", "error"}

// NewLogger returns the log of a process that runs unattended: JSON on
// standard error.
func NewLogger(level string) (*zap.Logger, error) {
	at, err := ParseLevel(level)
	if err != nil {
		return nil, err
	}
	c := zap.NewProductionConfig()
	c.Level = zap.NewAtomicLevelAt(min(at, zap.InfoLevel))
	c.Sampling = nil // no line is one an event, and none of who changed what may be missing
	c.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	c.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	c.DisableStacktrace = true
	c.DisableCaller = true
	return c.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return leveled{core, at} }))
}

// leveled drops what is below its level, but for who changed what.
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

// ParseLevel reads the value of --log-level.
func ParseLevel(level string) (zapcore.Level, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		err = fmt.Errorf("--log-level %s: must be debug, info, warn or error", level)
	}
	return at, err
}
