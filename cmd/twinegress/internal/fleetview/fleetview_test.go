package fleetview

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"twinegress/cmd/twinegress/internal/term"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *time.Time { at := noon.Add(-d); return &at }

func yes(is bool) *bool { return &is }

// three is a fleet of three copies, one of which is silent, with an endpoint in trouble.
func three() *Fleet {
	lag := int64(12)
	return &Fleet{
		At: noon,
		Copies: []Copy{
			{ID: "tw-0-a", Instance: "tw-0", Version: "1.2", StartedAt: *ago(time.Hour), Self: true, Ready: yes(true), Ingest: CopyIngest{Ingest: Ingest{Lag: &lag}, Partitions: []int32{5, 0, 1, 2}}},
			{ID: "tw-1-b", Instance: "tw-1", Version: "1.2", StartedAt: *ago(time.Hour), AgeSeconds: 1.5, Ready: yes(false), NotReady: []string{"no broker answers"}},
			{ID: "tw-2-c", Instance: "tw-2", Version: "1.1", StartedAt: *ago(time.Hour), AgeSeconds: 65, Stale: true, Ready: yes(true)},
		},
		Ingest: Ingest{Records: 1234, Events: 1300, Unrouted: 3, Rejected: map[string]uint64{"undecodable": 2, "unknown_type": 0}},
		Endpoints: []Endpoint{
			{ID: "9f1c1c1e-6e0a", Type: "ServiceBus", State: "ready", Routed: 5, Delivered: 5, Key: "primary", Windows: map[string]Window{"1m": {Delivered: 600}, "15m": {Dropped: 12_345}}},
			{ID: "2", Name: "alerts", State: "ready", Key: "secondary", Routed: 2, Delivered: 1, Pending: 1, StateSince: *ago(90 * time.Minute)},
			{
				ID: "3", Name: "a hub with a name that is very long", State: "backing_off", StateSince: *ago(time.Second), FailingSince: ago(70 * time.Second), Reason: "unauthorized",
				Routed: 100, Delivered: 90, Dropped: map[string]uint64{"backoff": 9, "unauthorized": 1}, Key: "primary",
				LastError: "unauthorized: both keys are refused", BackOffUntil: ago(-30 * time.Second), States: map[string]int{"backing_off": 1, "ready": 1},
			},
		},
		Troubles: []Trouble{
			{Severity: critical, What: "backs off: both keys are refused", Endpoint: "3", Name: "hub", Since: ago(70 * time.Second), Copies: []string{"tw-0-a"}, Action: "renew its keys", Runbook: "#keys"},
			{Severity: "warning", What: "copy tw-2 is silent"},
		},
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	if err := Print(&b, three(), 80); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	at := 0
	for _, want := range []string{
		"2 troubles\n\nCRITICAL  hub: backs off: both keys are refused\n          since " + clock(*ago(70 * time.Second)) + " (1m), on tw-0\n          To do: renew its keys\n          See docs/operations.md#keys\n",
		"WARNING   copy tw-2 is silent\n",
		"COPY          VERSION  READY   SAID    UP  LAG      PARTITIONS\ntw-0 (asked)  1.2      yes     0s ago  1h  12       0-2,5\n",
		"tw-1          1.2      NO      1s ago  1h  unknown  none\n", "tw-2          1.1      SILENT  1m ago  ", "tw-1: no broker answers\n",
		"NAME               STATE", "a hub with a name… backing_off     1m       -       -        -       0 primary\n",
		"  next try in 30s; so on 1 of 2 copies\n  unauthorized: both keys are refused\n",
		"alerts             ready           1h       -       -        -       1 secondary\n  uses its secondary key\n",
		"9f1c1c1e           ready            -      10       0    12.3k       0 primary\n",
		"read 1,234 records, 1,300 events; lag unknown; 3 events that no endpoint takes; set aside: undecodable 2\n",
		"routed 107 = delivered 96 + dropped 10 (backoff 9, unauthorized 1) + pending 1\n",
	} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Errorf("%q is not next in\n%s", want, out)
			continue
		}
		at += i + len(want)
	}
	if strings.Contains(out, "DON'T ADD UP") {
		t.Errorf("the counts are right:\n%s", out)
	}
	_, table, _ := strings.Cut(out, "\nNAME")
	head, _, _ := strings.Cut(table, "\n")
	fits(t, []string{"NAME" + head}, 80)
}

func fits(t *testing.T, lines []string, width int) {
	t.Helper()
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > width {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// It never says that all is well when something isn't, whoever has no word for it.
func TestVerdict(t *testing.T) {
	for what, tt := range map[string]struct {
		f    Fleet
		want string // "" is well
	}{
		"nothing":           {Fleet{}, ""},
		"well":              {Fleet{Copies: []Copy{{Ready: yes(true)}, {}}, Endpoints: []Endpoint{{State: "ready"}, {State: "provisioning"}}}, ""},
		"a trouble":         {Fleet{Troubles: []Trouble{{}}}, "1 trouble"},
		"a bad state":       {Fleet{Endpoints: []Endpoint{{State: "throttled"}}}, "not well: 1 endpoint"},
		"on its second key": {Fleet{Endpoints: []Endpoint{{State: "ready", Reason: "unauthorized"}}}, "not well: 1 endpoint"},
		"of both":           {Fleet{Copies: []Copy{{Stale: true}, {Stale: true}}, Endpoints: []Endpoint{{State: "probing"}}}, "not well: 1 endpoint, 2 copies"},
		"an unknown state":  {Fleet{Endpoints: []Endpoint{{State: "asleep"}}}, "not well: 1 "},
		"a silent copy":     {Fleet{Copies: []Copy{{Ready: yes(true), Stale: true}}}, "not well: 1 "},
		"not ready":         {Fleet{Copies: []Copy{{Ready: yes(false)}}}, "not well: 1 "},
	} {
		if tt.f.Well() != (tt.want == "") || !strings.HasPrefix(tt.f.Verdict(), tt.want) {
			t.Errorf("%s: %v, %q", what, tt.f.Well(), tt.f.Verdict())
		}
	}
	wrong := three()
	wrong.Endpoints[0].Routed++
	var b strings.Builder
	if err := Print(&b, wrong, 0); err != nil || !strings.Contains(b.String(), "DON'T ADD UP") {
		t.Errorf("counts that don't add up: %v\n%s", err, b.String())
	}
}

// An endpoint that is behind says by how much and for how long; where that isn't known,
// it says so.
func TestBehind(t *testing.T) {
	for _, tt := range []struct {
		e    Endpoint
		want string
		well bool
	}{
		{Endpoint{State: "ready", Backlog: 5}, "", true},
		{Endpoint{State: "behind", Backlog: 1_204_331, BehindSince: ago(time.Hour), CaughtUpAt: ago(-2 * time.Minute)}, "catching up: 1,204,331 offsets, about 2m left", true},
		{Endpoint{State: "behind", Backlog: 1, BehindSince: ago(time.Second)}, "catching up: 1 offset, how long it takes is not known yet", true},
		{Endpoint{State: "behind", Backlog: 20, BehindSince: ago(time.Second), CatchUpPerSecond: new(100.)}, "20 offsets behind, not becoming less at present", true},
		{Endpoint{State: "behind", Backlog: 20, BehindSince: ago(time.Hour), FallsBehind: true}, "20 offsets behind, and it does not catch up", false},
		{Endpoint{State: "backing_off", Backlog: 20, BehindSince: ago(time.Hour), FallsBehind: true, BacklogOldestAt: ago(time.Hour)}, "20 offsets behind, kept in Kafka, the oldest for 1h", false},
		{Endpoint{State: "stopped", Backlog: 20, BehindSince: ago(time.Hour), LastError: "of yesterday"}, "20 offsets behind, kept in Kafka", true},
		{Endpoint{State: "stopped", Backlog: 20, BehindSince: ago(time.Hour), Reason: "unreachable", LastError: "unreachable: no route", BackOffUntil: ago(-time.Minute)}, "20 offsets behind, kept in Kafka|unreachable: no route", true},
		{Endpoint{State: "behind", Backlog: 2, BehindSince: ago(time.Second), LastError: "of yesterday"}, "catching up: 2 offsets, how long it takes is not known yet", true},
	} {
		f := &Fleet{At: noon, Endpoints: []Endpoint{tt.e}}
		if got := strings.Join(Rows(f, "state")[0].Remarks(noon), "|"); got != tt.want || f.Well() != tt.well {
			t.Errorf("%+v: %q, want %q; well: %v", tt.e, got, tt.want, f.Well())
		}
	}
	f := three()
	f.Endpoints[0].State, f.Endpoints[0].BehindSince, f.Endpoints[0].Backlog, f.Endpoints[0].Deferred, f.Endpoints[0].Routed = "behind", ago(time.Hour), 1_204_331, 7, 12
	var b strings.Builder
	if err := Print(&b, f, 80); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	_, table, _ := strings.Cut(out, "\nNAME")
	head, _, _ := strings.Cut(table, "\n")
	fits(t, []string{"NAME" + head}, 80)
	for _, want := range []string{
		"PENDING BACKLOG KEY", "a hub wit… backing_off     1m       -       -        -       0       - primary\n", "0    1.2M primary\n  catching up: ",
		"dropped 10 (backoff 9, unauthorized 1) + deferred 7 + pending 1\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "DON'T ADD UP") {
		t.Errorf("the counts are right:\n%s", out)
	}
	if f, err := OfStatus([]byte(`{"ready":true,"endpoints":[{"id":"1","state":"behind","backlog":5},{"id":"2","state":"behind","fallsBehind":true}]}`), noon); err != nil || len(f.Troubles) != 1 {
		t.Errorf("of a server without a fleet: %+v, %v", f.Troubles, err)
	}
}

// A server without a fleet is a fleet of one copy.
func TestOfStatus(t *testing.T) {
	f, err := OfStatus([]byte(`{"version":"1","instance":"a","ingest":{"records":5,"lag":7},"endpoints":[
		{"id":"1","type":"EventHub","path":"p","state":"backing_off","lastError":"refused"},{"id":"2","state":"ready"}]}`), noon)
	if err != nil || len(f.Copies) != 1 || f.Copies[0].readiness() != "unknown" || f.Notice == "" || *f.Ingest.Lag != 7 ||
		len(f.Troubles) != 1 || f.Troubles[0].What != "EventHub p is backing_off: refused" {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err = OfStatus([]byte(`{"ready":false,"notReady":["no broker"],"ingest":{"lag":null}}`), noon); err != nil || f.Ingest.Lag != nil || f.Troubles[0].What != "it is not ready: no broker" {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err = OfStatus([]byte("[]"), noon); err == nil {
		t.Error("no error")
	}
}

func TestSorts(t *testing.T) {
	f := &Fleet{Endpoints: []Endpoint{
		{ID: "1", Name: "d", State: "ready"},
		{ID: "2", Name: "C", State: "ready", Windows: map[string]Window{"1m": {Delivered: 5}, "15m": {Dropped: 1}}},
		{ID: "3", Name: "b", State: "backing_off", Pending: 7},
		{ID: "4", Name: "a", State: "ready", Reason: "unauthorized", Windows: map[string]Window{"1m": {Delivered: 9}}},
		{ID: "5", Name: "e", State: "degraded", Windows: map[string]Window{"15m": {Dropped: 4}}},
	}}
	for by, want := range map[string]string{"state": "beaCd", "name": "abCde", "rate": "aCbde", "dropped": "eCabd", "pending": "baCde"} {
		got := ""
		for _, r := range Rows(f, by) {
			got += r.Name
		}
		if got != want {
			t.Errorf("by %s: %s, want %s", by, got, want)
		}
	}
	if NextSort("state") != "name" || NextSort("pending") != "state" {
		t.Error("the order of orders")
	}
}

// Rates are of counts of the same copies; where those differ, they are not known.
func TestRates(t *testing.T) {
	var h History
	at := func(s int, delivered uint64, copies ...string) string {
		f := &Fleet{At: noon.Add(time.Duration(s) * time.Second), Ingest: Ingest{Events: 10 * delivered}, Endpoints: []Endpoint{{ID: "1", State: "ready", Delivered: delivered}}}
		for _, id := range copies {
			f.Copies = append(f.Copies, Copy{ID: id, Ready: yes(true), Stale: strings.HasPrefix(id, "-")})
		}
		h.Add(f)
		frame := h.Frame("state")
		return rate(frame.in) + " " + rate(frame.rows[0].rate)
	}
	for i, step := range []struct {
		s         int
		delivered uint64
		copies    string
		want      string
	}{
		{0, 100, "a b", "- -"},
		{1, 200, "a b", "1,000 100"},
		{2, 400, "a b", "1,500 150"},
		{8, 400, "a b", "0 0"},   // the span has moved on
		{9, 390, "a b", "- -"},   // begun anew, unnoticed
		{10, 100, "a -b", "- -"}, // b is silent: the sums are a's
		{11, 160, "a -b", "600 60"},
		{12, 900, "a b", "- -"}, // b is back, with all that it counted
	} {
		if got := at(step.s, step.delivered, strings.Fields(step.copies)...); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`)

// drawn returns what a terminal of a size shows.
func drawn(width, height int, lines []term.Line) []string {
	var b strings.Builder
	(&term.Terminal{Out: &b, Size: func() (int, int, error) { return width, height, nil }}).Draw(lines)
	return strings.Split(strings.TrimSuffix(escapes.ReplaceAllString(b.String(), ""), "\r\n"), "\r\n")
}

func TestScreen(t *testing.T) {
	f := three()
	f.Troubles[0].What = "both keys\x1b[2J are refused " + strings.Repeat("x", 300)
	for i := range 30 {
		f.Endpoints = append(f.Endpoints, Endpoint{ID: fmt.Sprint("id", i), Name: fmt.Sprint("z", i), State: "ready"})
	}
	var h History
	h.Add(f)
	for _, size := range [][2]int{{80, 24}, {200, 60}, {70, 12}, {20, 5}, {1, 1}} {
		for _, colour := range []bool{true, false} {
			frame := h.Frame("state")
			frame.Server, frame.Now = "http://127.0.0.1:8080", noon
			lines := frame.Screen(term.NewStyles(colour), size[0], size[1]-1)
			if size[1] > 12 && len(lines) > size[1]-1 {
				t.Errorf("%v: %d lines", size, len(lines))
			}
			fits(t, drawn(size[0], size[1], lines), size[0])
		}
	}
	frame := h.Frame("state")
	frame.Server, frame.Now, frame.Failed, frame.Since = "http://a", noon.Add(12*time.Second), errors.New("connection refused\x1b[2J"), noon
	screen := strings.Join(drawn(100, 30, frame.Screen(term.Styles{}, 100, 29)), "\n")
	for _, want := range []string{
		"twinegress top  ", "sorted by state  q: end   http://a", "3 copies, 1 silent, 1 not ready   in -/s",
		"NO ANSWER for 12s, what is below is of " + clock(noon) + ": connection refused", "! hub: both keys", "a hub with a name that is very long backing_off",
		"\n  To do: renew its keys", "\nand 21 more",
	} {
		if !strings.Contains(screen, want) {
			t.Errorf("%q is not in\n%s", want, screen)
		}
	}
	if text := frame.Text(); !strings.Contains(text, "NO ANSWER for 12s") || !strings.Contains(text, "2 troubles | hub: both keys") || strings.Contains(text, "\n") {
		t.Errorf("as a line: %s", text)
	}
	list := drawn(80, 10, frame.Lines(term.Styles{}, 80, 9))
	if !strings.HasPrefix(list[0], "NO ANSWER") || !strings.HasPrefix(list[len(list)-1], "and ") {
		t.Errorf("the list\n%s", strings.Join(list, "\n"))
	}
}

// What is not known is not said to be 0 or none, and what a trouble says is not said twice.
func TestUnknownAndSaid(t *testing.T) {
	f, no := three(), false
	f.Notice, f.Troubles[0].What = "the topic can't be read", "hub: unauthorized: both keys are refused"
	f.Troubles = append(f.Troubles, Trouble{Severity: "warning", What: "this copy can't say: the topic can't be read"})
	var zero int64
	for i := range f.Copies {
		f.Copies[i].Stale, f.Copies[i].Ready, f.Copies[i].Ingest.Lag = true, &no, &zero
	}
	var b strings.Builder
	if err := Print(&b, f, 0); err != nil {
		t.Fatal(err)
	}
	for _, once := range []string{"the topic can't be read", "both keys are refused"} {
		if n := strings.Count(b.String(), once); n != 1 {
			t.Errorf("%q is there %d times:\n%s", once, n, b.String())
		}
	}
	if n := strings.Count(b.String(), "unknown "); n != len(f.Copies) {
		t.Errorf("the lag of %d silent copies is unknown, want %d:\n%s", n, len(f.Copies), b.String())
	}
	f.Endpoints = nil
	b.Reset()
	if err := Print(&b, f, 0); err != nil || !strings.Contains(b.String(), "endpoints: not known, as no copy is ready") {
		t.Errorf("%v:\n%s", err, b.String())
	}
}

// The rates of a fleet that was just started are of the time since.
func TestRatesOfAStart(t *testing.T) {
	f := &Fleet{At: noon, Copies: []Copy{{StartedAt: noon.Add(-10 * time.Second)}}, Endpoints: []Endpoint{{Windows: map[string]Window{"1m": {Delivered: 120}}}}}
	if got := *Rows(f, "name")[0].rate; got != 12 {
		t.Errorf("%v a second", got)
	}
	f.Copies[0].StartedAt = noon.Add(-time.Hour)
	if got := *Rows(f, "name")[0].rate; got != 2 {
		t.Errorf("%v a second", got)
	}
}

// Ten thousand endpoints are listed at once.
func BenchmarkList(b *testing.B) {
	f := three()
	for i := range 10_000 {
		f.Endpoints = append(f.Endpoints, Endpoint{ID: fmt.Sprint(i), Name: fmt.Sprint("endpoint ", i), State: "ready", StateSince: noon, Windows: map[string]Window{"1m": {}, "15m": {}}})
	}
	body, err := json.Marshal(f)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		var f Fleet
		if err := json.Unmarshal(body, &f); err != nil {
			b.Fatal(err)
		}
		if err := PrintList(&strings.Builder{}, &f, "state", 80, false); err != nil {
			b.Fatal(err)
		}
	}
}
