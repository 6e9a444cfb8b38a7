package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/internal/certtest"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/sinks"
)

// tapping is a tap that runs.
type tapping struct {
	out, notes env.Output
	end        context.CancelFunc
	code       chan int
}

// tap starts the command, and returns once it shows events.
func tap(h *env.Env, args ...string) *tapping {
	h.T.Helper()
	ctx, end := context.WithCancel(h.T.Context())
	t := &tapping{end: end, code: make(chan int, 1)}
	go func() {
		root := rootCommand() //nolint:contextcheck // execute gives it the context
		root.SetArgs(append([]string{"tap"}, args...))
		t.code <- exitCode(execute(ctx, root, &t.out, &t.notes))
	}()
	env.Eventually(h.T, "the tap begins", func() bool { return t.notes.String() != "" })
	if note := t.notes.String(); !strings.Contains(note, "on the copy") {
		h.T.Fatal(note)
	}
	return t
}

// await returns the first n lines of events.
func (t *tapping) await(h *env.Env, n int) []string {
	h.T.Helper()
	env.Eventually(h.T, fmt.Sprintf("%d events are shown", n), func() bool { return strings.Count(t.out.String(), "\n") >= n })
	return strings.Split(strings.TrimSpace(t.out.String()), "\n")
}

// What is shown of an event is what the service got, by each protocol; and what
// became of it.
func TestTapFromTheShell(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 1})
	hub, grid := h.Hub("SensorChange").With("body", "data"), h.Grid("SensorChange").With("name", "grid")
	h.SetEndpoints(hub, grid)
	cfg := load(h, nil)
	cfg.API.Tokens = append(cfg.API.Tokens, config.Token{Name: "watcher", SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("watcher"))), Role: config.RoleRead, Events: true})
	cfg.API.TLS = config.ServerTLS{CertFile: h.Dir + "/api.pem", KeyFile: h.Dir + "/api.key"} // and so over HTTP/2
	certtest.Write(t, cfg.API.TLS.CertFile, cfg.API.TLS.KeyFile)
	r := start(h, app.Options{Config: cfg})
	t.Setenv(serverVariable, "https://"+r.APIAddress())
	t.Setenv(tokenVariable, "watcher")
	ca := []string{"--ca-file", cfg.API.TLS.CertFile}
	env.Eventually(t, "the endpoints run", func() bool { return len(r.Pipeline.Status().Endpoints) == 2 })

	toHub := tap(h, append(ca, "hub", "--rate", "100", "--for", "10m", "--output", "json")...)
	toGrid := tap(h, append(ca, "grid", "--rate", "100", "--output", "json")...)
	h.Produce(h.Events(5)...)
	ofHub, ofGrid := toHub.await(h, 5), toGrid.await(h, 5)
	for name, lines := range map[string][]string{"hub": ofHub, "grid": ofGrid} {
		sent := make(map[string]emulator.Message) // by body
		for _, m := range h.Services.Messages(name) {
			sent[string(m.Body)] = m
		}
		for _, line := range lines {
			var e sinks.TapEntry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			m, ok := sent[e.Body]
			if !ok || e.MessageID != m.MessageID || e.Outcome != "delivered" || e.Latency == nil || name == "hub" && e.Type != m.ContentType {
				t.Errorf("%s: %s\n%+v was sent", name, line, slices.Collect(maps.Keys(sent)))
			}
			if name == "hub" && !reflect.DeepEqual(e.Properties, m.Properties) {
				t.Errorf("properties %v, sent are %v", e.Properties, m.Properties)
			}
		}
	}
	toGrid.end() // Ctrl-C
	if code := <-toGrid.code; code != 0 || !strings.Contains(toGrid.notes.String(), "5 events shown, and 0 were not") {
		t.Errorf("exit code %d: %s", code, toGrid.notes.String())
	}

	// For people, and what is dropped.
	h.SetFault(emulator.Fault{RejectKey: "both"}, "hub")
	text := tap(h, append(ca, "hub")...)
	h.Produce(h.Events(1)...)
	line := text.await(h, 1)[0]
	if !regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} unauthorized +\S+ SensorChange +`+h.Topic+`/0/5 .*both keys are refused`).MatchString(line) || len(line) > 3*tapWidth {
		t.Errorf("line %q", line)
	}
	if note := text.notes.String(); !strings.Contains(note, "hub EventHub 127.0.0.1") || !strings.Contains(note, "at most 10 a second") {
		t.Errorf("note %q", note)
	}

	for name, tt := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no right":     {append(ca, "hub", "--token-file", h.Write("token", []byte(env.Token))), exitFailed, "may not see what is in events"},
		"unknown":      {append(ca, "nope"), exitFailed, "nope"},
		"too fast":     {append(ca, "hub", "--rate", "101"), exitUsage, "--rate 101: must be from 1 to 100"},
		"too long":     {append(ca, "hub", "--for", "16m"), exitUsage, "--for 16m0s: must be more than 0 and at most 15m0s"},
		"which one":    {ca, exitUsage, "one is needed"},
		"no server":    {append(ca, "hub", "--server", "http://127.0.0.1:1"), exitFailed, "can't be reached"},
		"other server": {append(ca, "9f1c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d", "--server", "http://"+r.OpsAddress()), exitFailed, "is it the Management API"},
	} {
		if _, code, err := (shell{t}).command("", append([]string{"tap"}, tt.args...)...); code != tt.code || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: exit code %d, %v", name, code, err)
		}
	}

	// The copy stops: its taps end, and it waits for none of them.
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, one := range []*tapping{toHub, text} {
		if code := <-one.code; code != 0 || !strings.Contains(one.notes.String(), sinks.TapStopped+": ") {
			t.Errorf("exit code %d: %s", code, one.notes.String())
		}
	}
	if line := r.log.Line("endpoint's events are shown", `"who":"watcher"`, `"audit":true`); line == "" {
		t.Error("no audit line")
	}
}
