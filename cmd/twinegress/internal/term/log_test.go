package term

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

type pair struct{ a, b string }

func (p pair) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("a", p.a)
	enc.AddString("b", p.b)
	return nil
}

// A line of a log for a person has its fields in their order, and one line.
func TestLogLine(t *testing.T) {
	var out bytes.Buffer
	log := NewLogger(&out, zap.InfoLevel).Named("api").With(zap.Inline(pair{"z", "with space"}))
	log.Debug("not this")
	log.Warn("it\nfailed", zap.Int("n", 3), zap.Error(errors.New(`say "x=1"`)), zap.Duration("took", time.Second), zap.String("empty", ""),
		zap.Strings("list", []string{"p", "q"}), zap.Object("o", pair{"1", "2"}), zap.Time("at", time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))))
	want := `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) WARN  api: it\\nfailed a=z b="with space" n=3 error="say \\"x=1\\"" took=1s empty="" ` +
		`list=\["p","q"\] o=\{"a":"1","b":"2"\} at=2026-01-02T03:04:05\.000\+01:00\n$`
	if !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("logged\n%swant\n%s", &out, want)
	}
}

// Colour is the styles' alone: what others said is escaped, and carries none.
func TestLogEscapes(t *testing.T) {
	const evil = "\x1b[31m\u009b2J\u202e\r\nnew line\t"
	for _, styles := range []Styles{NewStyles(false), NewStyles(true)} {
		var out bytes.Buffer
		zap.New(NewLogCore(&out, zap.DebugLevel, styles)).Named(evil).Error(evil, zap.String("s", evil), zap.String(evil, "v"), zap.Object("o", pair{evil, evil}))
		plain := regexp.MustCompile(`\x1b\[(0|1|2|31|32|33)m`).ReplaceAllString(out.String(), "")
		if coloured := strings.Contains(out.String(), "\x1b"); coloured != (styles != Styles{}) {
			t.Errorf("coloured %v: %q", coloured, out.String())
		}
		if strings.Count(plain, "\n") != 1 || !strings.HasSuffix(plain, "\n") || strings.ContainsFunc(strings.TrimSuffix(plain, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(plain, "\t") {
			t.Errorf("%q", plain)
		}
		if n := strings.Count(plain, "2J"); n != 6 {
			t.Errorf("what was said is %d times in %q", n, plain)
		}
	}
}
