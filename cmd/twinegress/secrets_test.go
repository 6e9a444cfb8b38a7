package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
)

// The keys that no output may show: base64, with the characters that other
// encodings change.
var secretKeys = map[string]emulator.KeyPair{
	"namespace": {Primary: "+/pr1maryNamesp4ceKey+/AAAAAAAAAAAAAAAAAAAA=", Secondary: "+/sec0ndaryNamesp4ceKey+/EEEEEEEEEEEEEEEEEE="},
	"grid":      {Primary: "+/pr1maryGr1dKey+/IIIIIIIIIIIIIIIIIIIIIIIII=", Secondary: "+/sec0ndaryGr1dKey+/MMMMMMMMMMMMMMMMMMMMMMM="},
}

// secretForms are the keys and the tokens in every form that a library may
// give them in a message.
func secretForms() map[string]string {
	forms := map[string]string{"the API's token": apiToken}
	for owner, pair := range secretKeys {
		for which, key := range map[string]string{"primary": pair.Primary, "secondary": pair.Secondary} {
			name := owner + " " + which
			forms[name] = key
			forms[name+", without padding"] = strings.TrimRight(key, "=")
			forms[name+", URL-encoded"] = url.QueryEscape(key)
			forms[name+", as a path"] = url.PathEscape(key)
			for encoding, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				// Somewhere in a longer text: three alignments, without the
				// characters at either end that depend on the neighbours.
				for shift := range 3 {
					encoded := e.EncodeToString([]byte(strings.Repeat("x", shift) + key))
					forms[name+", "+encoding+" "+string(rune('0'+shift))] = encoded[4 : len(encoded)-4]
				}
			}
			raw, err := base64.StdEncoding.DecodeString(key)
			if err != nil {
				panic(err)
			}
			forms[name+", decoded"] = string(raw)
			forms[name+", hex"] = hex.EncodeToString(raw)
			forms[name+", hex of the text"] = hex.EncodeToString([]byte(key))
		}
	}
	return forms
}

// signature is that of a token which a key signed: a secret while it is valid.
var signature = regexp.MustCompile(`(?i)sig(nature)?(=|%3d|":")[^*&"\s\\]{8}`)

func checkNoSecrets(t *testing.T, where, text string) {
	t.Helper()
	for name, form := range secretForms() {
		if i := strings.Index(text, form); i >= 0 {
			t.Errorf("%s shows the key %s: …%s…", where, name, text[max(0, i-150):min(len(text), i+len(form)+50)])
		}
	}
	if m := signature.FindString(text); m != "" {
		t.Errorf("%s shows a signature: %s", where, m)
	}
}

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

func secretWorld(t *testing.T) (*world, config.Config, []endpoints.Endpoint) {
	t.Helper()
	grid := secretKeys["grid"]
	w := newWorldFor(t, 2, emulator.Config{
		Keys: secretKeys["namespace"], Hubs: []emulator.Hub{{Name: "hub", Partitions: 2}}, Topics: []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid", Keys: &grid}},
	})
	cfg := withAPI(w.config())
	cfg.Send.Timeout, cfg.Send.Attempts = 400*time.Millisecond, 2
	cfg.Backoff.Initial, cfg.Backoff.Max = 20*time.Millisecond, 50*time.Millisecond
	return w, cfg, []endpoints.Endpoint{w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange")}
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
	w, cfg, set := secretWorld(t)
	w.write("endpoints.json", file(set...))
	var logged buffer
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&logged), zap.DebugLevel))
	store, err := openStore(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := newServer(ctx, cfg, store, log)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{server: s, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.run(ctx) }()

	// look reads all that can be seen from outside.
	look := func(when string) {
		t.Helper()
		for _, path := range []string{"/endpoints", "/status", "/endpoints/nope"} {
			_, reply := r.manage(http.MethodGet, path, nil)
			checkNoSecrets(t, when+": GET "+path, reply)
		}
		for _, snap := range r.pipeline.Snapshots() {
			for _, path := range []string{"", "/status"} {
				_, reply := r.manage(http.MethodGet, "/endpoints/"+snap.Endpoint.ID+path, nil)
				checkNoSecrets(t, when+": GET of an endpoint", reply)
			}
		}
		_, metrics := get(t, "http://"+r.ops.address()+"/metrics", "")
		checkNoSecrets(t, when+": metrics", metrics)
		checkNoSecrets(t, when+": log", logged.take())
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
		for _, snap := range r.pipeline.Snapshots() {
			r.manage(http.MethodPost, "/endpoints/"+snap.Endpoint.ID+"/retry", nil)
		}
	}
	var delivered, dropped uint64
	for _, snap := range r.pipeline.Snapshots() {
		delivered += snap.Counts.Delivered
		dropped += snap.Counts.DroppedTotal()
	}
	if delivered == 0 || dropped == 0 {
		t.Errorf("delivered %d, dropped %d: the faults did too much or too little", delivered, dropped)
	}

	// What is wrong with a body is told without the body.
	key := secretKeys["namespace"].Primary
	for _, body := range []string{
		`{"type":"EventHub","path":"` + key + `","connectionString":"` + key + `"}`,
		`{"type":"` + key + `","eventTypes":["` + key + `"],"` + key + `":1,"body":"` + key + `"}`,
		`{"connectionString":"Endpoint=sb://x;SharedAccessKeyName=` + key + `;SharedAccessKey=a b` + key + `"`,
		`"` + key + `"`, key, `{"filter":"` + key + `"}`, `{"name":"` + key + `",}`, `{"connectionString":["` + key + `"]}`,
	} {
		for method, path := range map[string]string{http.MethodPost: "/endpoints", http.MethodPut: "/endpoints/" + r.pipeline.Snapshots()[0].Endpoint.ID} {
			status, reply := r.manage(method, path, []byte(body))
			if status != http.StatusBadRequest {
				t.Errorf("%s: %d", body, status)
			}
			checkNoSecrets(t, "the refusal of a body", reply)
		}
	}
	for _, path := range []string{"/endpoints?types=" + url.QueryEscape(key), "/endpoints/" + url.PathEscape(key), "/endpoints?" + url.QueryEscape(key) + "=1"} {
		_, reply := r.manage(http.MethodGet, path, nil)
		checkNoSecrets(t, "the refusal of "+path[:11], reply)
	}
	look("after bad requests")
	if err := r.stop(); err != nil {
		checkNoSecrets(t, "the error of run", err.Error())
	}
	checkNoSecrets(t, "the log of stopping", logged.take())
}

// Nor does one show when the process dies with all its goroutines on the
// screen, as in a panic.
func TestNoSecretInACrash(t *testing.T) {
	w, _, set := secretWorld(t)
	if err := w.services.SetFault("topic", emulator.Fault{RejectKey: "both"}); err != nil {
		t.Fatal(err)
	}
	p := w.run(set...)
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
	checkNoSecrets(t, "the crash", out)
}
