package app

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/internal/config"
	"twinegress/internal/untrusted"
)

// LogConfig logs what is in force: which configuration file was read, what differs
// from the defaults, with secrets masked, and what this process is and has.
func LogConfig(log *zap.Logger, cfg config.Config, file, version string) {
	if file == "" {
		file = "none"
	}
	fields := []zap.Field{
		zap.String("file", file), zap.Object("changed", changes(cfg.Changes())),
		zap.String("version", version), zap.Int("pid", os.Getpid()), zap.Int("cores", runtime.GOMAXPROCS(0)),
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // -1 only asks
		fields = append(fields, zap.Int64("memoryLimit", limit))
	}
	log.Info("the configuration in force", fields...)
}

// changes are an object with a member for each key.
type changes []config.Change

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (c changes) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, change := range c {
		enc.AddString(change.Key, untrusted.Text(change.Value))
	}
	return nil
}
