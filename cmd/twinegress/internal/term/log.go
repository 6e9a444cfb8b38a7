package term

import (
	"io"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// NewLogger returns a log for a person. It serialises its writes to out.
func NewLogger(out io.Writer, level zapcore.Level) *zap.Logger {
	c := zap.NewDevelopmentEncoderConfig()
	c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05")
	c.EncodeDuration = zapcore.StringDurationEncoder
	c.ConsoleSeparator = " "
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(c), zapcore.Lock(zapcore.AddSync(out)), level))
}

// LogTail keeps the last lines of a log, for a screen.
type LogTail struct {
	mu    sync.Mutex
	lines []string
	next  io.Writer
}

// tailLines is how many lines are kept.
const tailLines = 3

// Write keeps the lines of p; after PassOn it writes them to next.
func (l *LogTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		return l.next.Write(p)
	}
	for line := range strings.Lines(string(p)) {
		l.lines = append(l.lines, strings.TrimRight(line, "\n"))
	}
	l.lines = l.lines[max(0, len(l.lines)-tailLines):]
	return len(p), nil
}

// Lines returns the last lines.
func (l *LogTail) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// PassOn makes later writes go to next.
func (l *LogTail) PassOn(next io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = next
}
