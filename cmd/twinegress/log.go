package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/server/api"
)

// levels are those of a log, for --log-level.
var levels = []string{"debug", "info", "warn", "error"}

func levelFlag(cmd *cobra.Command, to *string, standard string) {
	cmd.Flags().StringVar(to, "log-level", standard, "debug, info, warn or error")
	completeFrom(cmd, "log-level", levels)
}

func newLogger(level string) (*zap.Logger, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %s: must be debug, info, warn or error", level)
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
