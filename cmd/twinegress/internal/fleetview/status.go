package fleetview

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
)

// shownRows is how many endpoints a status shows that are all the same: ready.
const shownRows = 20

// Print writes the fleet's status for a person: troubles first, then the copies, the
// endpoints, the worst first, and the sums. width is the terminal's; 0 is no terminal.
func Print(w io.Writer, f *Fleet, width int) error {
	var b strings.Builder
	f.printTroubles(&b)
	if f.Notice != "" && !f.said(f.Notice) {
		fmt.Fprintf(&b, "\nNote: %s\n", untrusted.Text(f.Notice))
	}
	b.WriteByte('\n')
	if err := f.printCopies(&b); err != nil {
		return err
	}
	b.WriteByte('\n')
	f.printEndpoints(&b, width)
	b.WriteByte('\n')
	f.printSums(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (f *Fleet) printTroubles(b *strings.Builder) {
	fmt.Fprintln(b, f.Verdict())
	for i := range f.Troubles {
		t := &f.Troubles[i]
		fmt.Fprintf(b, "\n%-8s  %s\n", strings.ToUpper(untrusted.Escape(t.Severity)), t.text())
		if about := f.about(t); about != "" {
			fmt.Fprintf(b, "          %s\n", about)
		}
		if t.Action != "" {
			fmt.Fprintf(b, "          To do: %s\n", untrusted.Text(t.Action))
		}
		if t.Runbook != "" {
			fmt.Fprintf(b, "          See docs/operations.md#%s\n", untrusted.Text(strings.TrimPrefix(t.Runbook, "#")))
		}
	}
}

// Well reports whether nothing is known to be wrong. It doesn't rely on the troubles
// alone: what is seen to be wrong is, whoever has a word for it.
func (f *Fleet) Well() bool {
	broken, unready := f.wrong()
	return len(f.Troubles)+broken+unready == 0
}

// Verdict is Well in words.
func (f *Fleet) Verdict() string {
	text := term.Count(len(f.Troubles), "trouble", "troubles")
	broken, unready := f.wrong()
	if len(f.Troubles) > 0 || broken+unready == 0 {
		return text
	}
	var parts []string
	if broken > 0 {
		parts = append(parts, term.Count(broken, "endpoint", "endpoints"))
	}
	if unready > 0 {
		parts = append(parts, term.Count(unready, "copy", "copies"))
	}
	return "not well: " + strings.Join(parts, ", ")
}

// wrong counts the endpoints with which something is wrong, and the copies that are not ready.
func (f *Fleet) wrong() (broken, unready int) {
	for i := range f.Endpoints {
		// Why one that is paused did not work before that, nobody has to mend now.
		if e := &f.Endpoints[i]; e.rank() < rank("behind") || e.Reason != "" && e.State != "stopped" || e.FallsBehind {
			broken++
		}
	}
	for i := range f.Copies {
		if word := f.Copies[i].readiness(); word == "NO" || word == "SILENT" {
			unready++
		}
	}
	return broken, unready
}

// text says what is wrong, and with which endpoint.
func (t *Trouble) text() string {
	if t.Name != "" && !strings.Contains(t.What, t.Name) {
		return untrusted.Text(t.Name + ": " + t.What)
	}
	return untrusted.Text(t.What)
}

// said reports whether one of the troubles has a text in it, which then needs no
// second place.
func (f *Fleet) said(text string) bool {
	return slices.ContainsFunc(f.Troubles, func(t Trouble) bool { return strings.Contains(t.What, text) })
}

// about returns since when and on which copies a trouble is.
func (f *Fleet) about(t *Trouble) string {
	var parts []string
	if t.Since != nil {
		parts = append(parts, "since "+clock(*t.Since)+" ("+term.Ago(f.At.Sub(*t.Since))+")")
	}
	if len(t.Copies) > 0 {
		parts = append(parts, "on "+untrusted.Text(strings.Join(f.instances(t.Copies), ", ")))
	}
	return strings.Join(parts, ", ")
}

// nameOf returns the name of a copy: its instance, or its id where several have that.
func (f *Fleet) nameOf(c *Copy) string {
	for i := range f.Copies {
		if o := &f.Copies[i]; o.Instance == c.Instance && o.ID != c.ID {
			return cmp.Or(c.ID, c.Instance)
		}
	}
	return cmp.Or(c.Instance, c.ID)
}

// instances returns the copies with those ids as the table of copies names them.
func (f *Fleet) instances(ids []string) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id
		if at := slices.IndexFunc(f.Copies, func(c Copy) bool { return c.ID == id }); at >= 0 {
			names[i] = f.nameOf(&f.Copies[at])
		}
	}
	const most = 5
	if n := len(names) - most; n > 0 {
		names = append(names[:most], fmt.Sprintf("and %d more", n))
	}
	return names
}

func (f *Fleet) printCopies(b *strings.Builder) error {
	t := term.NewTable(b)
	t.Row("COPY", "VERSION", "READY", "SAID", "UP", "LAG", "PARTITIONS")
	for i := range f.Copies {
		c := &f.Copies[i]
		name := f.nameOf(c)
		if c.Self {
			name += " (asked)"
		}
		t.Row(name, c.Version, c.readiness(), term.Ago(time.Duration(c.AgeSeconds*float64(time.Second)))+" ago",
			since(c.StartedAt, f.At), lag(c.lag()), ranges(c.Ingest.Partitions))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range f.Copies {
		c := &f.Copies[i]
		for _, why := range c.NotReady {
			fmt.Fprintf(b, "%s: %s\n", untrusted.Text(f.nameOf(c)), untrusted.Text(why))
		}
		if c.Ingest.WaitsForEndpoints {
			fmt.Fprintf(b, "%s reads nothing: there is no endpoint\n", untrusted.Text(f.nameOf(c)))
		}
	}
	return nil
}

// readiness is the word for how a copy is. What a silent one said last is not how it
// is now.
func (c *Copy) readiness() string {
	switch {
	case c.Stale:
		return "SILENT"
	case c.Ready == nil:
		return "unknown"
	case *c.Ready:
		return "yes"
	}
	return "NO"
}

// lag is how far the copy is behind; nil if that is not known, as of a silent one.
func (c *Copy) lag() *int64 {
	if c.Stale {
		return nil
	}
	return c.Ingest.Lag
}

func lag(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return term.Grouped(*n)
}

// ranges formats partitions: 0-2,5.
func ranges(partitions []int32) string {
	if len(partitions) == 0 {
		return "none"
	}
	list := slices.Sorted(slices.Values(partitions))
	var parts []string
	for i := 0; i < len(list); {
		first, last := list[i], list[i]
		for i++; i < len(list) && list[i] <= last+1; i++ {
			last = list[i]
		}
		part := strconv.Itoa(int(first))
		if last > first {
			part += "-" + strconv.Itoa(int(last))
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}

func (f *Fleet) printEndpoints(b *strings.Builder, width int) {
	if len(f.Endpoints) == 0 {
		b.WriteString(f.none() + "\n")
		return
	}
	rows := Rows(f, "state")
	t := NewTable(rows[:min(len(rows), shownRows)], width, term.Styles{}, f.At)
	b.WriteString(t.Head().Plain() + "\n")
	for i, r := range rows {
		if i >= shownRows && (r.State == "ready" || i >= 10*shownRows) {
			fmt.Fprintf(b, "and %s more: twinegress endpoints list\n", term.Grouped(len(rows)-i))
			break
		}
		b.WriteString(t.Line(r).Plain() + "\n")
		for _, remark := range f.remarks(r) {
			b.WriteString("  " + remark + "\n")
		}
	}
}

// none says that there is no endpoint, unless no copy can tell: they are loaded when
// Kafka is there.
func (f *Fleet) none() string {
	if !slices.ContainsFunc(f.Copies, func(c Copy) bool { return c.readiness() == "yes" }) {
		return "endpoints: not known, as no copy is ready"
	}
	return "no endpoints"
}

// printSums writes what was read, and the equation that what was routed satisfies.
func (f *Fleet) printSums(b *strings.Builder) {
	in := &f.Ingest
	fmt.Fprintf(b, "read %s records, %s events; lag %s", term.Grouped(in.Records), term.Grouped(in.Events), lag(in.Lag))
	if in.Unrouted > 0 {
		fmt.Fprintf(b, "; %s events that no endpoint takes", term.Grouped(in.Unrouted))
	}
	if rejected := counts(in.Rejected); rejected != "" {
		fmt.Fprintf(b, "; set aside: %s", rejected)
	}
	s := f.sums()
	fmt.Fprintf(b, "\nrouted %s = delivered %s + dropped %s", term.Grouped(s.routed), term.Grouped(s.delivered), term.Grouped(s.dropped))
	if reasons := counts(s.reasons); reasons != "" {
		fmt.Fprintf(b, " (%s)", reasons)
	}
	if s.deferred > 0 {
		fmt.Fprintf(b, " + deferred %s", term.Grouped(s.deferred))
	}
	fmt.Fprintf(b, " + pending %s\n", term.Grouped(s.pending))
	if s.routed != s.delivered+s.dropped+s.deferred+uint64(max(s.pending, 0)) {
		b.WriteString("THE COUNTS DON'T ADD UP: that is a fault of twinegress, or of versions that differ between the copies\n")
	}
}

// counts formats counts that are not 0: backoff 12, unreachable 5.
func counts(of map[string]uint64) string {
	parts := inOrder(of)
	for i, name := range parts {
		parts[i] = untrusted.Escape(name) + " " + term.Grouped(of[name])
	}
	return strings.Join(parts, ", ")
}

// clock formats a time with its zone.
func clock(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05 MST") }
