package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/sinks"
)

// view shows a running demo.
type view interface {
	// logger returns a log whose lines don't overwrite the view.
	logger(errOut io.Writer, o app.LogOptions) (*zap.Logger, error)
	start(hints []hint)
	period() time.Duration
	show(frame)
	announce(line string) // of a story; frames have it too
	end()
}

// newView returns the view for out: a screen on a terminal, else plain lines.
func newView(o Options, out io.Writer) view {
	if t := term.Open(out); t != nil && !o.Plain && !o.JSON {
		return &screenView{Terminal: t, styles: term.NewStyles(os.Getenv("NO_COLOR") == "")}
	}
	return &plainView{out: out}
}

// plainView writes a line a second.
type plainView struct{ out io.Writer }

func (v *plainView) logger(errOut io.Writer, o app.LogOptions) (*zap.Logger, error) {
	return app.NewLogger(o, errOut)
}

func (v *plainView) period() time.Duration { return time.Second }

func (v *plainView) start(hints []hint) {
	fmt.Fprintln(v.out, "twinegress demo: embedded Kafka, emulated Azure services, generated events. Ctrl-C ends it. To look inside:")
	for _, h := range hints {
		fmt.Fprintf(v.out, "  %-8s %s\n", h.what, strings.ReplaceAll(h.command, "\\\n  ", ""))
	}
}

func (v *plainView) show(f frame) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %s/s lag %s", term.Clock(f.at), term.Rate(f.rateIn), term.Grouped(f.lag))
	for i := range f.rows {
		r := &f.rows[i]
		fmt.Fprintf(&b, " | %s %s/s %s delivered", r.Endpoint.Name, term.Rate(r.rate), term.Grouped(r.Counts.Delivered))
		if r.Counts.Pending > 0 {
			fmt.Fprintf(&b, " %s pending", term.Grouped(r.Counts.Pending))
		}
		if reasons := r.reasons(); reasons != "" {
			fmt.Fprintf(&b, " dropped %s", reasons)
		}
		if !r.BehindSince.IsZero() {
			fmt.Fprintf(&b, " %s offsets to catch up on", term.Grouped(r.backlog()))
		}
		if r.State != sinks.StateReady {
			fmt.Fprintf(&b, " %s", r.State)
		}
		if r.usesSecondary() {
			b.WriteString(" key secondary")
		}
		if r.HoldsBack {
			b.WriteString(" holds back")
		}
		fmt.Fprintf(&b, " p50 %s p99 %s", r.p50, r.p99)
	}
	if f.notice != "" {
		fmt.Fprintf(&b, " | %s", f.notice)
	}
	fmt.Fprintln(v.out, b.String())
}

func (v *plainView) announce(line string) { fmt.Fprintln(v.out, line) }

func (v *plainView) end() {}
