package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"twinegress/e2e/env"
	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/internal/config"
	"twinegress/server/api"
	"twinegress/sinks"
)

// positioned is a Pipeline and Positions of an API whose endpoints run nowhere.
type positioned struct {
	api.Pipeline
	preview api.Preview
	backlog int64
}

func (p *positioned) Health(string) (sinks.Health, bool) { return sinks.Health{}, false }

func (p *positioned) Preview(context.Context, string) (api.Preview, error) { return p.preview, nil }

func (p *positioned) Backlog(string) (int64, bool) { return p.backlog, false }

// serveHub serves the API with an endpoint hub, to which the commands of the test go.
func serveHub(t *testing.T, p *positioned) *endpoints.MemoryStore {
	t.Helper()
	store, err := endpoints.NewMemoryStore([]endpoints.Endpoint{storetest.Hub("hub")}, endpoints.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api.New(api.Options{
		Config: config.API{Tokens: []config.Token{{Name: "tests", SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(env.Token))), Role: config.RoleWrite}}, RateLimit: 100},
		Store:  store, Pipeline: p, Positions: p, Log: zap.NewNop(),
	}))
	t.Cleanup(server.Close)
	t.Setenv(serverVariable, server.URL)
	t.Setenv(tokenVariable, env.Token)
	return store
}

func TestSeekFromTheShell(t *testing.T) {
	at := time.Now().Add(-48 * time.Hour).Truncate(time.Second).UTC()
	p := &positioned{preview: api.Preview{Offsets: 12345, From: at, Reaches: at.Add(-time.Hour)}, backlog: 3}
	store := serveHub(t, p)
	id := store.Current()[0].ID
	s := shell{t: t}
	local := func(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05 MST") }
	name := "hub (" + id + ", EventHub hub): "

	about := "\n  12,345 offsets are read again for it, the first of " + local(at) + "\n  Kafka reaches back to " + local(at.Add(-time.Hour)) + "\n"
	to := at.Format(time.RFC3339)
	if out := s.ok("", "endpoints", "seek", "hub", "--to", to, "--dry-run"); out != name+"nothing has changed; a seek to "+local(at)+" would do this"+about {
		t.Errorf("tried: %q", out)
	}
	if e := store.Current()[0]; e.SeekTo != "" {
		t.Errorf("tried, and stored: %+v", endpoints.Document(e))
	}
	p.preview.Reaches = at.Add(time.Hour)
	out := s.ok("", "endpoints", "seek", id[:shortID], "--to", to)
	if !strings.HasPrefix(out, name+"seek to "+local(at)+" ordered at ") || !strings.Contains(out, "\n  note: Kafka doesn't reach back that far") ||
		!strings.Contains(out, "\n  how far it is: twinegress status") || store.Current()[0].SeekTo != to {
		t.Errorf("sought: %q", out)
	}
	if _, code, err := s.command("", "endpoints", "seek", "hub", "--to", "latest"); code != exitFailed || !strings.Contains(err.Error(), "a seek of the endpoint is under way") {
		t.Errorf("beside another: %d %v", code, err)
	}
	if out := s.ok("", "endpoints", "seek", "hub", "--to", "cancel"); !strings.Contains(out, "\n  each copy takes its partitions back to where the endpoint was") {
		t.Errorf("cancelled: %q", out)
	}
	if out := s.ok("", "endpoints", "seek", "hub", "--to", "latest", "--dry-run"); !strings.Contains(out, "\n  3 offsets of its backlog are skipped") {
		t.Errorf("latest: %q", out)
	}
	var reply api.Seek
	if err := json.Unmarshal([]byte(s.ok("", "endpoints", "seek", "hub", "--to", "90m", "--output", "json")), &reply); err != nil || reply.ID != id || reply.SeekAt == "" {
		t.Errorf("as JSON: %+v, %v", reply, err)
	}
	shown := s.ok("", "endpoints", "get", "hub")
	for _, want := range []string{"recovery drop", "enabled true", "started at now", "last seek to " + clockTime(time.Now().Add(-90 * time.Minute))[:5]} {
		if !strings.Contains(collapse(shown), want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
	for name, tt := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no --to":        {[]string{"hub"}, exitUsage, "--to: is required"},
		"no endpoint":    {[]string{"--to", "latest"}, exitUsage, "0 endpoints given"},
		"no time":        {[]string{"hub", "--to", "yesterday"}, exitFailed, "to must be earliest, latest, cancel, a time with its zone"},
		"in the future":  {[]string{"hub", "--to", "9998-01-01T00:00:00Z"}, exitFailed, "is a time in the future"},
		"unknown output": {[]string{"hub", "--to", "latest", "--output", "xml"}, exitUsage, "must be table or json"},
	} {
		if _, code, err := s.command("", append([]string{"endpoints", "seek"}, tt.args...)...); code != tt.code || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %d %v", name, code, err)
		}
	}
}

// An endpoint is paused and resumed by one word, and nothing else of it changes.
func TestEnableFromTheShell(t *testing.T) {
	store := serveHub(t, &positioned{})
	before := store.Current()[0]
	s := shell{t: t}
	expect := func(command, says string, disabled bool) {
		t.Helper()
		if out := s.ok("", "endpoints", command, "hub"); !strings.HasPrefix(out, says) {
			t.Errorf("%s: %q, want %q", command, out, says)
		}
		want := before
		want.Enabled = new(!disabled)
		if e := store.Current()[0]; !e.Equal(want) {
			t.Errorf("%s: %+v", command, endpoints.Diff(want, e))
		}
	}
	name := "hub (" + before.ID + ", EventHub hub)"
	expect("enable", "nothing to change: "+name+" was so already\n", false)
	expect("disable", "disabled "+name+": what comes meanwhile is dropped (recovery: drop)\n", true)
	expect("disable", "nothing to change: "+name, true)
	expect("enable", "enabled "+name+": it gets the events that come from now on", false)
	_, err := store.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		set[0].Recovery = endpoints.RecoveryCatchUp
		return set, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before = store.Current()[0]
	expect("disable", "disabled "+name+": what comes meanwhile it gets once it is enabled", true)
	if out := s.ok("", "endpoints", "get", "hub"); !strings.Contains(collapse(out), "recovery catchUp") || !strings.Contains(collapse(out), "status Stopped") {
		t.Errorf("get\n%s", out)
	}
	expect("enable", "enabled "+name+": it goes on where it was", false)
}
