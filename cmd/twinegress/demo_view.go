package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"twinegress/sinks"
)

// demoView shows the demo while it runs.
type demoView interface {
	// logger gives the log that goes with the view, such that it doesn't wreck it.
	logger(errOut io.Writer, level zapcore.Level) *zap.Logger
	start(hints []hint)
	period() time.Duration
	show(demoFrame)
	tell(line string) // of a story, which frames hold, too
	end()
}

// newDemoView chooses by where it would show.
func newDemoView(o demoOptions, out io.Writer) demoView {
	file, ok := out.(*os.File)
	if !ok || o.plain || o.output == "json" || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(file.Fd())) {
		return &plainView{out: out}
	}
	return &screenView{
		out:   out,
		size:  func() (int, int, error) { return term.GetSize(int(file.Fd())) },
		style: styles(os.Getenv("NO_COLOR") == ""),
	}
}

// demoLogger is a log to be read by a person.
func demoLogger(w zapcore.WriteSyncer, level zapcore.Level) *zap.Logger {
	c := zap.NewDevelopmentEncoderConfig()
	c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05")
	c.EncodeDuration = zapcore.StringDurationEncoder
	c.ConsoleSeparator = " "
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(c), w, level))
}

// plainView writes a line a second.
type plainView struct{ out io.Writer }

func (v *plainView) logger(errOut io.Writer, level zapcore.Level) *zap.Logger {
	return demoLogger(zapcore.Lock(zapcore.AddSync(errOut)), level)
}

func (v *plainView) period() time.Duration { return time.Second }

func (v *plainView) start(hints []hint) {
	fmt.Fprintln(v.out, "twinegress demo: embedded Kafka, emulated Azure services, generated events. Ctrl-C ends it. To look inside:")
	for _, h := range hints {
		fmt.Fprintf(v.out, "  %-8s %s\n", h.what, strings.ReplaceAll(h.command, "\\\n  ", ""))
	}
}

func (v *plainView) show(f demoFrame) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %s/s lag %s", clockOf(f.uptime), rounded(f.rateIn), grouped(f.lag))
	for _, r := range f.rows {
		fmt.Fprintf(&b, " | %s %s/s %s delivered", r.name, rounded(r.rate), grouped(r.delivered))
		if r.pending > 0 {
			fmt.Fprintf(&b, " %s pending", grouped(r.pending))
		}
		if r.dropped > 0 {
			fmt.Fprintf(&b, " dropped %s", r.reasons)
		}
		if r.state != sinks.StateReady {
			fmt.Fprintf(&b, " %s", r.state)
		}
		if r.secondary {
			b.WriteString(" key secondary")
		}
		if r.holdsBack {
			b.WriteString(" holds back")
		}
		fmt.Fprintf(&b, " p50 %s p99 %s", r.p50, r.p99)
	}
	if f.notice != "" {
		fmt.Fprintf(&b, " | %s", f.notice)
	}
	fmt.Fprintln(v.out, b.String())
}

func (v *plainView) tell(line string) { fmt.Fprintln(v.out, line) }

func (v *plainView) end() {}

// logTail keeps the last lines of a log, to be shown inside a view, and writes
// to next once there is no view.
type logTail struct {
	mu    sync.Mutex
	lines []string
	next  io.Writer
}

// logTailLines is how many: what matters is that something is wrong, and what last.
const logTailLines = 3

func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		return l.next.Write(p)
	}
	for line := range strings.Lines(string(p)) {
		l.lines = append(l.lines, strings.TrimRight(line, "\n"))
	}
	l.lines = l.lines[max(0, len(l.lines)-logTailLines):]
	return len(p), nil
}

func (l *logTail) tail() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// passOn ends the keeping.
func (l *logTail) passOn(to io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = to
}
