package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/internal/emulator"
)

// buffer is a log that is written by many.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// take gives what was written since the last time.
func (b *buffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

// logger logs all there is into the buffer, as `run` does.
func (b *buffer) logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(b), zap.DebugLevel))
}

// everyFault makes each kind of trouble that the emulator knows.
var everyFault = []emulator.Fault{
	{Down: true},
	{Hang: true},
	{Silent: true},
	{RejectKey: "primary"},
	{RejectKey: "secondary"},
	{RejectKey: "both"},
	{Refuse: "amqp:not-found"},
	{Refuse: "com.microsoft:entity-disabled"},
	{NoCredit: true},
	{Cut: emulator.CutMid},
	{Cut: emulator.CutBefore},
	{Cut: emulator.CutDuring, Every: 2},
	{Cut: emulator.CutAfter},
	{Cut: emulator.CutClose},
	{Detach: "amqp:unauthorized-access", Description: "because"},
	{Detach: "amqp:internal-error"},
	{Throttle: 1, Times: 1},
	{Outcome: emulator.OutcomeRejected, Condition: "amqp:decode-error"},
	{Outcome: emulator.OutcomeReleased, Times: 3},
	{Outcome: emulator.OutcomeModified, Times: 3},
	{Status: 400},
	{Status: 403},
	{Status: 503, RetryAfter: 1, Times: 1},
	{NeverSettle: true},
	{Delay: emulator.Duration(50 * time.Millisecond)},
	{Poison: `"n":3}`},
}

// No key of any endpoint shows in a log (at its most talkative), an error, a
// metric or a reply of the API, whatever happens to the services.
func TestNoSecretShows(t *testing.T) {
	fields := reflect.TypeFor[emulator.Fault]()
	for i := range fields.NumField() {
		tried := false
		for _, f := range everyFault {
			tried = tried || !reflect.ValueOf(f).Field(i).IsZero()
		}
		if !tried {
			t.Errorf("the fault %s is not tried", fields.Field(i).Name)
		}
	}
	w := newSecretWorld(t)
	w.write("endpoints.json", file(w.set...))
	var logged buffer
	log := logged.logger()
	store, err := app.OpenStore(w.cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := app.New(ctx, app.Options{Config: w.cfg, Store: store, Version: version, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{App: s, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()

	// look reads all that can be seen from outside.
	look := func(when string) {
		t.Helper()
		for _, path := range []string{"/endpoints", "/status", "/endpoints/nope"} {
			_, reply := r.manage(http.MethodGet, path, nil)
			w.secrets.check(t, when+": GET "+path, reply)
		}
		for _, snap := range r.Pipeline.Snapshots() {
			for _, path := range []string{"", "/status"} {
				_, reply := r.manage(http.MethodGet, "/endpoints/"+snap.Endpoint.ID+path, nil)
				w.secrets.check(t, when+": GET of an endpoint", reply)
			}
		}
		_, metrics := get(t, "http://"+r.OpsAddress()+"/metrics", "")
		w.secrets.check(t, when+": metrics", metrics)
		w.secrets.check(t, when+": log", logged.take())
	}
	look("at the start")
	produced := 0
	for _, f := range everyFault {
		name, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		made := 0
		for _, entity := range []string{"hub", "topic", "grid", emulator.Namespace} {
			if entity == emulator.Namespace && !f.Down && !f.Hang && !f.Silent {
				continue
			}
			if w.services.SetFault(entity, f) == nil { // some don't exist everywhere
				made++
			}
		}
		if made == 0 {
			t.Errorf("%s: no service can have it", name)
		}
		w.produce(numbered(12, 2)...)
		produced += 12
		r.settled(produced)
		look(string(name))
		for _, entity := range []string{"hub", "topic", "grid", emulator.Namespace} {
			if err := w.services.ClearFault(entity); err != nil {
				t.Fatal(err)
			}
		}
		for _, snap := range r.Pipeline.Snapshots() {
			r.manage(http.MethodPost, "/endpoints/"+snap.Endpoint.ID+"/retry", nil)
		}
	}
	for _, snap := range r.Pipeline.Snapshots() {
		if delivered, dropped := snap.Counts.Delivered, snap.Counts.DroppedTotal(); delivered == 0 || dropped == 0 {
			t.Errorf("%s: delivered %d, dropped %d: the faults did too much or too little", snap.Endpoint.Name, delivered, dropped)
		}
	}

	// What is wrong with a body is told without the body.
	key := secretKeys["namespace"].Primary
	for _, body := range []string{
		`{"type":"EventHub","path":"` + key + `","connectionString":"` + key + `"}`,
		`{"type":"` + key + `","eventTypes":["` + key + `"],"` + key + `":1,"body":"` + key + `"}`,
		`{"connectionString":"Endpoint=sb://x;SharedAccessKeyName=` + key + `;SharedAccessKey=a b` + key + `"`,
		`"` + key + `"`, key, `{"filter":"` + key + `"}`, `{"name":"` + key + `",}`, `{"connectionString":["` + key + `"]}`,
	} {
		for method, path := range map[string]string{http.MethodPost: "/endpoints", http.MethodPut: "/endpoints/" + r.Pipeline.Snapshots()[0].Endpoint.ID} {
			status, reply := r.manage(method, path, []byte(body))
			if status != http.StatusBadRequest {
				t.Errorf("%s: %d", body, status)
			}
			w.secrets.check(t, "the refusal of a body", reply)
		}
	}
	for _, path := range []string{"/endpoints?types=" + url.QueryEscape(key), "/endpoints/" + url.PathEscape(key), "/endpoints?" + url.QueryEscape(key) + "=1"} {
		_, reply := r.manage(http.MethodGet, path, nil)
		w.secrets.check(t, "the refusal of "+path[:11], reply)
	}
	look("after bad requests")
	if err := r.stop(); err != nil {
		w.secrets.check(t, "the error of run", err.Error())
	}
	w.secrets.check(t, "the log of stopping", logged.take())
}

// Nor does one show when the process dies with all its goroutines on the
// screen, as in a panic.
func TestNoSecretInACrash(t *testing.T) {
	w := newSecretWorld(t)
	if err := w.services.SetFault("topic", emulator.Fault{RejectKey: "both"}); err != nil {
		t.Fatal(err)
	}
	p := w.run(w.set...)
	w.produce(numbered(2000, 2)...)
	eventually(t, "events arrive", func() bool { return w.services.Stats().Entity("hub").Count > 0 })
	if err := p.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	out := p.out.String()
	if !strings.Contains(out, "SIGQUIT") || !strings.Contains(out, "twinegress/sinks.") {
		t.Fatalf("no dump of the goroutines: %s", out)
	}
	w.secrets.check(t, "the crash", out)
}
