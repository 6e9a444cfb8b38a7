package term

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"unicode"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/internal/untrusted"
)

// logTime is the time of a line: with the zone, since who reads it may be in another.
const logTime = "2006-01-02T15:04:05.000Z07:00"

// NewLogger returns a log for a person: see NewLogCore.
func NewLogger(out io.Writer, level zapcore.Level) *zap.Logger {
	return zap.New(NewLogCore(out, level, Styles{}))
}

// NewLogCore returns the core of a log for a person, a readable line each: the time
// with its zone, the level, the message, and the fields as name=value, in their
// order. It serialises its writes to out. What could steer a terminal is escaped but
// for the styles, so out may be the terminal itself.
func NewLogCore(out io.Writer, level zapcore.Level, styles Styles) zapcore.Core {
	// The fields alone: all keys of the entry are empty.
	fields := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		SkipLineEnding: true, EncodeTime: zapcore.TimeEncoderOfLayout(logTime), EncodeDuration: zapcore.StringDurationEncoder,
	})
	return &textCore{LevelEnabler: level, out: zapcore.Lock(zapcore.AddSync(out)), fields: fields, styles: styles}
}

type textCore struct {
	zapcore.LevelEnabler
	out    zapcore.WriteSyncer
	fields zapcore.Encoder
	styles Styles
}

func (c *textCore) With(fields []zapcore.Field) zapcore.Core {
	with := *c
	with.fields = c.fields.Clone()
	for _, f := range fields {
		f.AddTo(with.fields)
	}
	return &with
}

func (c *textCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *textCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	encoded, err := c.fields.EncodeEntry(zapcore.Entry{}, fields)
	if err != nil {
		return err
	}
	defer encoded.Free()
	var b strings.Builder
	c.styled(&b, c.styles.Faint, entry.Time.Format(logTime))
	b.WriteByte(' ')
	level := entry.Level.CapitalString()
	c.styled(&b, c.style(entry.Level), level)
	b.WriteString(strings.Repeat(" ", max(1, len("ERROR ")-len(level))))
	if entry.LoggerName != "" {
		c.styled(&b, c.styles.Faint, escapeLine(entry.LoggerName)+": ")
	}
	c.styled(&b, c.styles.Bold, escapeLine(entry.Message))
	c.appendFields(&b, encoded.Bytes())
	b.WriteByte('\n')
	_, err = io.WriteString(c.out, b.String())
	return err
}

func (c *textCore) Sync() error { return c.out.Sync() }

func (c *textCore) style(level zapcore.Level) Style {
	switch {
	case level >= zapcore.ErrorLevel:
		return c.styles.Bad
	case level == zapcore.WarnLevel:
		return c.styles.Warn
	case level == zapcore.InfoLevel:
		return c.styles.Good
	}
	return c.styles.Faint
}

func (c *textCore) styled(b *strings.Builder, style Style, text string) {
	if style == "" {
		b.WriteString(text)
		return
	}
	b.WriteString(string(style) + text + "\x1b[0m")
}

// appendFields appends the members of an object.
func (c *textCore) appendFields(b *strings.Builder, object []byte) {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil { // the brace
		return
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		key, ok := name.(string)
		if err != nil || !ok {
			b.WriteString(" " + escapeLine(string(object))) // rather than nothing
			return
		}
		b.WriteByte(' ')
		c.styled(b, c.styles.Faint, escapeLine(key)+"=")
		b.WriteString(escapeLine(plain(value)))
	}
}

// plain returns a value without its quotes, if it can do without.
func plain(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) != nil || s == "" ||
		strings.ContainsFunc(s, func(r rune) bool {
			return unicode.IsSpace(r) || r == '"' || r == '=' || r == '\\' || !unicode.IsPrint(r)
		}) {
		return string(value)
	}
	return s
}

// escapeLine escapes what isn't printable, line breaks and tabs too.
func escapeLine(s string) string {
	return untrusted.EscapeJSON(strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s))
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
