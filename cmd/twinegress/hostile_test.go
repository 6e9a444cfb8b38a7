package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/fleetview"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/pipeline/letters"
	"twinegress/pipeline/replay"
	"twinegress/server/api"
)

// hostile is a text that clears a screen, hides and turns round what follows, and
// begins a line of its own.
const hostile = "a\x1b[2J\u009b31m\u202e\u2066\u2028\u200b\ufeff\U000e0041\r\x07\x00\nforged  ok\tend"

// harmless fails unless a terminal shows out as it is, in lines of our own.
func harmless(t *testing.T, what, out string) {
	t.Helper()
	onlyPrintable(t, what, out)
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "forged") {
			t.Errorf("%s prints a line that the server made up:\n%s", what, out)
		}
	}
}

func onlyPrintable(t *testing.T, what, out string) {
	t.Helper()
	for i, r := range out {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' || r == utf8.RuneError && !strings.HasPrefix(out[i:], "\uFFFD") {
			t.Errorf("%s prints %U in %q", what, r, out)
			return
		}
	}
}

// hostileServer answers each request with what the test puts into it.
type hostileServer struct {
	*httptest.Server
	status int
	header http.Header
	body   []byte
}

func newHostileServer(t *testing.T) *hostileServer {
	s := new(hostileServer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret-token" {
			t.Errorf("%s %s without the token", r.Method, r.URL)
		}
		for name, values := range s.header {
			w.Header()[name] = values
		}
		w.WriteHeader(s.status)
		_, _ = w.Write(s.body)
	}))
	t.Cleanup(s.Close)
	t.Setenv(serverVariable, s.URL)
	t.Setenv(tokenVariable, "secret-token")
	return s
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hostileEndpoint(text string) api.Endpoint {
	return api.Endpoint{
		Document: endpoints.Document{
			ID: text, Name: text, Type: endpoints.Type(text), Path: text, EventTypes: []string{text}, Filter: text,
			ConnectionString: text, SecondaryConnectionString: text, Authentication: endpoints.Authentication(text),
			Body: endpoints.Body(text), Ordering: endpoints.Ordering(text), Overflow: endpoints.Overflow(text),
		},
		Report: api.Report{Status: text, Properties: map[string]string{"reason": text, "lastError": text}},
	}
}

func hostileFleet(text string) *fleetview.Fleet {
	e := fleetview.Endpoint{
		ID: text, Name: text, Type: text, Host: text, Path: text, EventTypes: []string{text}, State: text, Reason: text, Key: text, LastError: text,
		Dropped: map[string]uint64{text: 1}, States: map[string]int{text: 1},
	}
	in := fleetview.Ingest{Rejected: map[string]uint64{text: 1}}
	return &fleetview.Fleet{
		Notice: text, Ingest: in, Endpoints: []fleetview.Endpoint{e, e},
		Copies:   []fleetview.Copy{{ID: text, Instance: text, Version: text, NotReady: []string{text}, Ingest: fleetview.CopyIngest{Ingest: in}}},
		Troubles: []fleetview.Trouble{{Severity: text, What: text, Name: text, Copies: []string{text}, Action: text, Runbook: text}},
	}
}

// Whatever a server answers, a command prints nothing that steers the terminal.
func TestHostileServer(t *testing.T) {
	s := newHostileServer(t)
	const id = "568fd394-380b-46fa-925a-ebb96f658cce"
	commands := [][]string{
		{"list"},
		{"list", "--output", "json"},
		{"list", "--wide"},
		{"list", "--types", "x"},
		{"status"},
		{"status", "--output", "json"},
		{"get", id},
		{"get", id, "--output", "json"},
		{"get", "nope"},
		{"create"},
		{"create", "--output", "json"},
		{"update", id},
		{"delete", id},
		{"retry", id},
	}
	failure := func(texts ...string) []byte {
		details := make([]map[string]string, len(texts))
		for i, text := range texts {
			details[i] = map[string]string{"field": text, "message": text}
		}
		return asJSON(t, map[string]any{"error": map[string]any{"message": hostile, "details": details}})
	}
	raw := []byte(`[{"id":"` + "\x9b31m\xff\u009b\u2028" + `"}]`) // no UTF-8
	for name, answer := range map[string]struct {
		status int
		body   []byte
	}{
		"a list":            {200, asJSON(t, []api.Endpoint{hostileEndpoint(hostile), hostileEndpoint(hostile)})},
		"a fleet":           {200, asJSON(t, hostileFleet(hostile))},
		"one":               {200, asJSON(t, hostileEndpoint(hostile))},
		"an id":             {201, asJSON(t, hostile)},
		"no JSON":           {200, []byte(hostile)},
		"no UTF-8":          {200, raw},
		"a long number":     {200, []byte(strings.Repeat("9", 1<<20))},
		"a refusal":         {400, failure()},
		"a refusal, why":    {400, failure(hostile)},
		"many mistakes":     {409, failure(strings.Split(strings.Repeat(hostile+"|", 1000), "|")...)},
		"no token":          {401, failure()},
		"a failure":         {503, failure()},
		"text, and failure": {500, []byte(hostile)},
	} {
		s.status, s.body = answer.status, answer.body
		s.header = http.Header{"Etag": {"\"\u009b31m\u202e\""}, "X-Ms-Request-Id": {"\u009b31m\u202e"}}
		for _, args := range append(commands, []string{"__complete", "delete", ""}) {
			line := append([]string{"endpoints"}, args...)
			if args[0] == "status" {
				line = args
			}
			if args[0] == "__complete" {
				line = append([]string{"__complete", "endpoints"}, args[1:]...)
			}
			out, code := shell{t}.all("{}", line...)
			harmless(t, fmt.Sprintf("%s: %v", name, args), out)
			if answer.status >= 300 && args[0] != "__complete" && code != exitFailed {
				t.Errorf("%s: %v: exit code %d", name, args, code)
			}
			if args[len(args)-1] != "json" && len(out) > 256<<10 {
				t.Errorf("%s: %v prints %d bytes", name, args, len(out))
			}
		}
	}
	// What is escaped in JSON is still what it was.
	s.status, s.body = 200, asJSON(t, hostileEndpoint(hostile))
	var e api.Endpoint
	if err := json.Unmarshal([]byte(shell{t}.ok("", "endpoints", "get", id, "--output", "json")), &e); err != nil || e.Name != hostile {
		t.Errorf("read back: %q, %v", e.Name, err)
	}
	// The status line of an answer, and what is no answer at all.
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("HTTP/1.1 999 \u009b31m\u202e\x1b[2J\r\nConnection: close\r\n\r\n"))
			_ = conn.Close()
		}
	})
	out, _ := shell{t}.all("", "endpoints", "list")
	harmless(t, "a status line", out)
}

// A server that sends on elsewhere gets neither the token nor the body there.
func TestRedirectIsNotFollowed(t *testing.T) {
	var followed atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer other.Close()
	s := newHostileServer(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		s.status, s.header = status, http.Header{"Location": {other.URL + "/\u009b"}}
		for _, args := range [][]string{{"list"}, {"get", "hub"}, {"create"}, {"update", "568fd394-380b-46fa-925a-ebb96f658cce"}} {
			out, code := shell{t}.all("{}", append([]string{"endpoints"}, args...)...)
			if code != exitFailed || !strings.Contains(out, "sends on to "+other.URL) {
				t.Errorf("%d: %v: exit code %d, %s", status, args, code, out)
			}
			harmless(t, "a redirection", out)
		}
	}
	if n := followed.Load(); n > 0 {
		t.Errorf("followed %d times", n)
	}
}

// A reply without an end is read up to a limit, and the rest is left.
func TestReplyIsBounded(t *testing.T) {
	s := newHostileServer(t)
	var sent atomic.Int64
	piece := []byte(strings.Repeat(" ", 1<<20))
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			n, err := w.Write(piece)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	_, code, err := shell{t}.command("", "endpoints", "list")
	if code != exitFailed || !strings.Contains(err.Error(), "is longer than 128MiB") {
		t.Errorf("exit code %d, %v", code, err)
	}
	s.Close() // waits for the handler
	if n := sent.Load(); n > maxReply+64<<20 {
		t.Errorf("%d bytes were sent", n)
	}
	_, code, err = shell{t}.command(strings.Repeat(" ", maxBody+1), "endpoints", "create")
	if code != exitFailed || !strings.Contains(err.Error(), "is longer than 2MiB") {
		t.Errorf("an endpoint without an end: exit code %d, %v", code, err)
	}
}

// The token comes from a file or the environment, and from no flag.
func TestTokenOfTheShell(t *testing.T) {
	s := newHostileServer(t)
	s.status, s.body = 200, []byte("[]")
	t.Setenv(tokenVariable, "")
	file := filepath.Join(t.TempDir(), "token")
	for name, tt := range map[string]struct {
		content string
		code    int
		says    string
	}{
		"a token":      {"secret-token", 0, ""},
		"a line of it": {"secret-token\r\n", 0, ""},
		"none":         {"\n", exitUsage, "a token is required: in --token-file"},
		"two lines":    {"secret-token\nsecret-too", exitUsage, "a line break"},
	} {
		if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		out, code := shell{t}.all("", "endpoints", "list", "--output", "json", "--token-file", file)
		if code != tt.code || !strings.Contains(out, tt.says) || strings.Contains(out, "secret-to") {
			t.Errorf("%s: exit code %d, %s", name, code, out)
		}
	}
	if out, code := (shell{t}).all("", "endpoints", "list", "--token-file", t.TempDir()); code != exitUsage || !strings.Contains(out, "is a directory") {
		t.Errorf("a directory: %d, %s", code, out)
	}
	if _, code, err := (shell{t}).command("", "endpoints", "list", "--token", "x"); code != exitUsage || !strings.Contains(err.Error(), "unknown flag") {
		t.Errorf("--token: %d, %v", code, err)
	}
}

// FuzzPrinting looks for a text from outside that leaves a command as something
// else than printable characters, or as more lines than there are.
func FuzzPrinting(f *testing.F) {
	f.Add(hostile)
	f.Add("hub")
	f.Add("\x9b\xc2")
	f.Add("\xe2\x80")
	f.Fuzz(func(t *testing.T, text string) {
		e, fleet := hostileEndpoint(text), hostileFleet(text)
		check := app.CheckReport{Checks: []app.CheckResult{{
			What: text, ID: text, Name: text, Type: text, Path: text, Key: text, Error: text, Note: text,
		}}}
		letter := letters.Letter{
			Reason: text, Detail: text, Time: text, Elements: text, Cut: text, Source: letters.Source{Topic: text},
			Endpoint: letters.Endpoint{ID: text, Name: text, Target: text},
		}
		replayed := replay.Result{Letters: 1, Endpoints: []replay.EndpointResult{{
			ID: text, Name: text, Type: "EventHub", Path: text, RefusedAgain: 1, LastRefusal: text,
		}}}
		for what, tt := range map[string]struct {
			print func(w io.Writer) error
			lines int // 0: any number
		}{
			"list":      {func(w io.Writer) error { return fleetview.PrintList(w, fleet, "state", 80, false) }, 3},
			"wide list": {func(w io.Writer) error { return fleetview.PrintList(w, fleet, "name", 0, true) }, 3},
			"status":    {func(w io.Writer) error { return fleetview.Print(w, fleet, 80) }, 0},
			"top": {func(w io.Writer) error {
				var h fleetview.History
				h.Add(fleet)
				f := h.Frame("rate")
				f.Failed = errors.New(text)
				_, err := fmt.Fprintln(w, f.Text())
				return err
			}, 1},
			"get":           {func(w io.Writer) error { return printEndpoint(w, e, text) }, 0},
			"check":         {func(w io.Writer) error { return printChecks(w, check) }, 2},
			"check as JSON": {func(w io.Writer) error { return term.PrintJSON(w, check) }, 0},
			"replay":        {func(w io.Writer) error { return printReplay(w, "text", replayed, nil) }, 2},
			"dead letters": {func(w io.Writer) error {
				return printLetters(w, "table", letters.List{Letters: []letters.Letter{letter}})
			}, 2},
			"a dead letter": {func(w io.Writer) error { return printLetter(w, &letters.Whole{Letter: letter}) }, 0},
			"dead letters' count": {func(w io.Writer) error {
				return printCount(w, "table", letters.Count{Letters: 1, Groups: []letters.Group{{Endpoint: letter.Endpoint, Reason: text}}})
			}, 3},
			"dry run": {func(w io.Writer) error {
				return printPreview(w, "text", replay.Preview{Groups: []replay.PreviewGroup{{Endpoint: letter.Endpoint, Reason: text}}}, nil)
			}, 3},
			"replay as JSON": {func(w io.Writer) error { return printReplay(w, "json", replayed, nil) }, 0},
			"progress": {func(w io.Writer) error {
				(&replayView{out: w}).show(replay.Progress{Total: 1, Waits: []string{text}})
				return nil
			}, 1},
			"an error": {func(w io.Writer) error {
				refused := replyError(&http.Response{StatusCode: 400, Status: text}, asJSON(t, map[string]any{"error": map[string]string{"message": text}}), "GET /")
				_, err := fmt.Fprintln(w, refused)
				return err
			}, 1},
			"a log": {func(w io.Writer) error {
				log, err := app.NewLogger(app.LogOptions{Level: "info"}, w)
				if err == nil {
					log.Info("said", zap.String("error", text), zap.Error(errors.New(text)))
				}
				return err
			}, 1},
		} {
			var out strings.Builder
			if err := tt.print(term.NewOutput(&out)); err != nil {
				t.Fatal(err)
			}
			onlyPrintable(t, what, out.String())
			if n := strings.Count(out.String(), "\n"); tt.lines > 0 && n != tt.lines {
				t.Errorf("%s prints %d lines, want %d:\n%s", what, n, tt.lines, out.String())
			}
		}
	})
}
