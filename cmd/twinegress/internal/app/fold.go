package app

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/server/api"
)

const (
	// foldWindow is how long a line stands for those that say the same.
	foldWindow = 5 * time.Second
	// maxFolds bounds how many different lines are remembered at a time. More of
	// them in a window are written each.
	maxFolds = 1000
	// maxFoldKey bounds what of a line is compared.
	maxFoldKey = 2000
)

// fold writes a line once in foldWindow, and then how often it came meanwhile: a
// library that tries again several times a second says so each time. Whatever two
// lines differ in, but for times and durations and, below the level error, numbers
// in a text, makes them different lines. Audit lines are never folded.
type fold struct {
	zapcore.Core
	context string // of the fields that With added
	folds   *folds
}

// folds are the lines of the last window.
type folds struct {
	mu  sync.Mutex
	all map[string]*folded
}

// folded is a line that was written, and its repeats since.
type folded struct {
	timer    *time.Timer
	repeated int
	core     zapcore.Core // has the fields of the last repeat
	entry    zapcore.Entry
}

// folding returns a core that folds lines before it writes them to core. Sync writes
// what is folded.
func folding(core zapcore.Core) zapcore.Core {
	return fold{Core: core, folds: &folds{all: make(map[string]*folded)}}
}

func (f fold) With(fields []zapcore.Field) zapcore.Core {
	return fold{f.Core.With(fields), f.context + foldKey(fields, false), f.folds}
}

func (f fold) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if f.Enabled(entry.Level) {
		return checked.AddCore(entry, f)
	}
	return checked
}

func (f fold) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if isAudit(entry) || entry.Level > zapcore.ErrorLevel {
		return f.Core.Write(entry, fields)
	}
	exact := entry.Level == zapcore.ErrorLevel
	key := strings.Join([]string{entry.Level.String(), entry.LoggerName, entry.Message, f.context, foldKey(fields, exact)}, "\x00")
	s := f.folds
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.all[key]
	switch {
	case known != nil:
		known.repeated++
		known.core, known.entry = f.Core.With(fields), entry // the fields may not outlast the call
		return nil
	case len(s.all) < maxFolds:
		s.all[key] = &folded{timer: time.AfterFunc(foldWindow, func() { s.end(key) })}
	}
	return f.Core.Write(entry, fields)
}

// end ends a line's window: if it was repeated, it is written, and stands for
// another one.
func (s *folds) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.all[key]
	if known == nil {
		return
	}
	if known.repeated == 0 {
		delete(s.all, key)
		return
	}
	_ = known.write() // to a standard error that is closed
	known.timer.Reset(foldWindow)
}

func (k *folded) write() error {
	err := k.core.Write(k.entry, []zapcore.Field{zap.Int("repeated", k.repeated)})
	k.repeated, k.core = 0, nil
	return err
}

// Sync writes what is folded, and forgets what was written.
func (f fold) Sync() error {
	f.folds.mu.Lock()
	var first error
	for key, known := range f.folds.all {
		known.timer.Stop()
		if known.repeated > 0 {
			first = cmp.Or(first, known.write())
		}
		delete(f.folds.all, key)
	}
	f.folds.mu.Unlock()
	return cmp.Or(first, f.Core.Sync())
}

// foldKey returns what of some fields makes a line different from others.
func foldKey(fields []zapcore.Field, exact bool) string {
	var b strings.Builder
	for _, field := range fields {
		switch field.Type {
		case zapcore.DurationType, zapcore.TimeType, zapcore.TimeFullType, zapcore.SkipType:
			continue
		default:
		}
		m := zapcore.NewMapObjectEncoder()
		field.AddTo(m)
		names := make([]string, 0, len(m.Fields))
		for name := range m.Fields {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			text := fmt.Sprint(m.Fields[name])
			if !exact && field.Type != zapcore.InlineMarshalerType {
				text = withoutNumbers(text)
			}
			b.WriteString("\x01" + name + "=" + text)
		}
		if b.Len() > maxFoldKey {
			return b.String()[:maxFoldKey]
		}
	}
	return b.String()
}

// withoutNumbers returns a text with one digit for each number in it, if it has
// words around them: that a port or a count differs makes no other cause.
func withoutNumbers(s string) string {
	if !strings.Contains(s, " ") {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	was := false
	for _, r := range s {
		is := r >= '0' && r <= '9'
		switch {
		case !is:
			b.WriteRune(r)
		case !was:
			b.WriteByte('0')
		}
		was = is
	}
	return b.String()
}

func isAudit(entry zapcore.Entry) bool { return strings.HasSuffix(entry.LoggerName, "."+api.AuditLog) }
