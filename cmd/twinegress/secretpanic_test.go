package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/server/api"
	"twinegress/sinks"
)

// panicValues are what code that has the endpoints at hand may panic with.
var panicValues = map[string]func([]endpoints.Endpoint) any{
	"endpoint":              func(set []endpoints.Endpoint) any { return set[0] },
	"pointer":               func(set []endpoints.Endpoint) any { return &set[3] },
	"list":                  func(set []endpoints.Endpoint) any { return set },
	"map":                   func(set []endpoints.Endpoint) any { return map[string]endpoints.Endpoint{"a": set[2]} },
	"struct with it":        func(set []endpoints.Endpoint) any { return sinks.Snapshot{Endpoint: set[1]} },
	"connection string":     func(set []endpoints.Endpoint) any { return parsed(set[0].ConnectionString) },
	"signature":             func(set []endpoints.Endpoint) any { return parsed(set[3].ConnectionString) },
	"error":                 func(set []endpoints.Endpoint) any { return fmt.Errorf("bad: %+v", set) },
	"refusal of the string": func(set []endpoints.Endpoint) any { return refusal(set[0].ConnectionString) },
	"text":                  func(set []endpoints.Endpoint) any { return fmt.Sprintf("BUG: %#v %d %q", set, &set[4], set[2]) },
}

func parsed(s string) endpoints.ConnectionString {
	cs, err := endpoints.ParseConnectionString(s)
	if err != nil {
		panic(err)
	}
	return cs
}

// refusal is what is said about a connection string that is no longer one.
func refusal(s string) error {
	_, err := endpoints.ParseConnectionString(strings.Replace(s, "sb://", "", 1))
	return err
}

// panicking is a store that panics when it is to be changed.
type panicking struct {
	endpoints.Store
	with func([]endpoints.Endpoint) any
}

func (p panicking) Change(context.Context, func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	panic(p.with(p.Current()))
}

// A panic in the API is told to the log, with what it was about, and not to
// the caller; and neither is told a key.
func TestNoSecretInAPanicOfTheAPI(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 2, Services: env.WithSecrets})
	set, known := h.SecretEndpoints()
	h.SetEndpoints(set...)
	cfg := load(h, nil)
	store, err := app.OpenStore(cfg, zap.NewNop())
	h.Must(err)
	broken := &panicking{Store: store}
	r := start(h, app.Options{Config: cfg, Store: broken})
	env.Eventually(t, "the endpoints are loaded", func() bool { return len(store.Current()) == len(set) })
	id := store.Current()[0].ID
	for i, e := range store.Current() { // panicValues go by the order
		if e.Name != set[i].Text("name") {
			t.Fatalf("%s is in the place of %s", e.Name, set[i].Text("name"))
		}
	}

	for name, value := range panicValues {
		broken.with = value
		for method, path := range map[string]string{http.MethodPost: "/endpoints", http.MethodPut: "/endpoints/" + id, http.MethodDelete: "/endpoints/" + id} {
			logged := len(r.log.String())
			request, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.APIAddress()+api.Base+path, bytes.NewReader(set[0].JSON()))
			h.Must(err)
			request.Header.Set("Authorization", "Bearer "+env.Token)
			request.Header.Set("Content-Type", "application/json")
			response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
			h.Must(err)
			reply, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != http.StatusInternalServerError {
				t.Errorf("%s, %s: %v %d %s", name, method, err, response.StatusCode, reply)
			}
			response.Body.Close()
			known.Check(t, name+": the reply", string(reply))
			log := r.log.String()[logged:]
			if !strings.Contains(log, "BUG: a request panicked") || !strings.Contains(log, "panicking") {
				t.Errorf("%s, %s: the log has no panic and its stack: %s", name, method, log)
			}
			known.Check(t, name+": the log", log)
		}
	}
}

// crashWith makes TestNoSecretInAPanicOfASink the process that crashes: it names
// one of the panicValues. The configuration is in the environment.
const crashWith = "TEST_CRASH_WITH"

// panickingSink panics as soon as it is to send.
type panickingSink struct{ value any }

func (s panickingSink) Send(context.Context, []*event.Event) (int, error) { panic(s.value) }
func (s panickingSink) Close(context.Context) error                       { return nil }

// A panic while sending ends the process, with the value and every goroutine
// on the screen, whose arguments are the endpoints.
func TestNoSecretInAPanicOfASink(t *testing.T) {
	if name := os.Getenv(crashWith); name != "" {
		crash(t, panicValues[name])
	}
	h := env.New(t, env.Config{Partitions: 2, Services: env.WithSecrets})
	set, known := h.SecretEndpoints()
	h.SetEndpoints(set...)
	h.Produce(h.Events(100)...)
	for name := range panicValues {
		t.Run(name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoSecretInAPanicOfASink$")
			// A group of its own: the one that crashed before would be waited for.
			settings := h.Settings(env.Settings{"ingest.group": h.Group + name})
			child.Env = append(append(os.Environ(), crashWith+"="+name, "GOTRACEBACK=all"), settings.Variables()...)
			out, err := child.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "panic: ") || !strings.Contains(string(out), "panickingSink.Send") {
				t.Fatalf("no crash: %v %s", err, out)
			}
			known.Check(t, "the crash", string(out))
		})
	}
}

// crash is the program with a sink that panics.
func crash(t *testing.T, with func([]endpoints.Endpoint) any) {
	cfg, configErr := config.Load(config.Sources{})
	store, storeErr := app.OpenStore(cfg, zap.NewNop())
	open, openErr := app.Openers(cfg, zap.NewNop())
	if err := errors.Join(configErr, storeErr, openErr); err != nil {
		t.Fatal(err)
	}
	open[endpoints.TypeServiceBus] = func(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) {
		return panickingSink{with(store.Current())}, nil
	}
	s, err := app.New(t.Context(), app.Options{Config: cfg, Store: store, Open: open, Version: version, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(s.Run(t.Context()))
}
