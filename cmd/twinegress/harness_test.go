package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
)

// asProgram makes the test binary behave as twinegress itself, so that tests
// can start, signal and kill real processes without building one.
const asProgram = "TWINEGRESS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		_ = os.Unsetenv(asProgram)
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const (
	ingestTopic     = "digitaltwins-events"
	deadLetterTopic = "twinegress-deadletter"
	patience        = 30 * time.Second // how long a test waits for what must happen
)

// world is everything around twinegress: a broker, the services, a directory.
type world struct {
	t        testing.TB
	services *emulator.Emulator
	kafka    *emulator.Kafka
	client   *kgo.Client
	dir      string
}

// newWorld starts a broker whose ingest topic has that many partitions, and
// services with the hubs "hub" (4 partitions) and "devices", the Service Bus
// topic "topic" and the Event Grid topic "grid", all of which record.
func newWorld(t *testing.T, partitions int) *world {
	t.Helper()
	return newWorldFor(t, partitions, emulator.Config{
		Hubs:            []emulator.Hub{{Name: "hub", Partitions: 4}, {Name: "devices", Partitions: 2}},
		Topics:          []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
		Record:          1 << 20,
		TrackIDs:        true,
	})
}

func newWorldFor(t testing.TB, partitions int, services emulator.Config) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	var err error
	if w.services, err = emulator.Start(t.Context(), services); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.services.Close(); err != nil {
			t.Error(err)
		}
	})
	w.kafka, err = emulator.StartKafka(emulator.KafkaConfig{
		Topics: map[string]int{ingestTopic: partitions}, MaxMessageBytes: 8 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.kafka.Close)
	w.client, err = kgo.NewClient(kgo.SeedBrokers(w.kafka.Addrs()...), kgo.DefaultProduceTopic(ingestTopic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(4<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	w.write("ca.pem", w.services.CAPEM())
	return w
}

func (w *world) write(name string, content []byte) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(temp, path); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// The endpoints that tests use; eventTypes as they are given.
func (w *world) hub(eventTypes ...string) endpoints.Endpoint {
	return w.amqp("hub", endpoints.TypeEventHub, "hub", eventTypes)
}

func (w *world) topic(eventTypes ...string) endpoints.Endpoint {
	return w.amqp("topic", endpoints.TypeServiceBus, "topic", eventTypes)
}

func (w *world) amqp(name string, typ endpoints.Type, path string, eventTypes []string) endpoints.Endpoint {
	return endpoints.Endpoint{
		Name: name, Type: typ, Path: path, EventTypes: eventTypes,
		ConnectionString:          w.services.EntityConnectionString(path, emulator.Primary),
		SecondaryConnectionString: w.services.EntityConnectionString(path, emulator.Secondary),
	}
}

func (w *world) grid(eventTypes ...string) endpoints.Endpoint {
	return endpoints.Endpoint{
		Name: "grid", Type: endpoints.TypeEventGrid, EventTypes: eventTypes,
		Path:                      w.services.EventGridHost("grid"),
		ConnectionString:          w.services.EventGridKey("grid", emulator.Primary),
		SecondaryConnectionString: w.services.EventGridKey("grid", emulator.Secondary),
	}
}

func (w *world) devices() endpoints.Endpoint {
	return w.amqp("devices", endpoints.TypeEventHub, "devices", []string{endpoints.DeviceMessage})
}

// file gives the endpoints as an endpoints file has them.
func file(set ...endpoints.Endpoint) []byte {
	entries := []map[string]any{}
	for _, e := range set {
		entries = append(entries, map[string]any{
			"name": e.Name, "type": e.Type, "path": e.Path, "eventTypes": e.EventTypes,
			"connectionString": e.ConnectionString, "secondaryConnectionString": e.SecondaryConnectionString,
			"body": e.Body, "overflow": e.Overflow, "filter": e.Filter, "authentication": e.Authentication,
		})
		for key, value := range entries[len(entries)-1] {
			if s, ok := value.(interface{ String() string }); ok && s.String() == "" || fmt.Sprint(value) == "" {
				delete(entries[len(entries)-1], key)
			}
		}
	}
	b, err := json.Marshal(entries)
	if err != nil {
		panic(err)
	}
	return b
}

// config is the default one, pointed at this world.
func (w *world) config() config.Config {
	cfg := config.Default()
	cfg.Ingest.Brokers = w.kafka.Addrs()
	cfg.Ingest.SessionTimeout = 10 * time.Second
	cfg.Endpoints.File = filepath.Join(w.dir, "endpoints.json")
	cfg.Endpoints.AllowDevelopmentEmulator = true
	cfg.API.Listen, cfg.Ops.Listen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Backoff.Initial = 200 * time.Millisecond
	cfg.Send.CAFile = filepath.Join(w.dir, "ca.pem")
	return cfg
}

// running is a server in this process.
type running struct {
	*app.App
	t      testing.TB
	cancel context.CancelFunc
	done   chan error
}

func (w *world) start(cfg config.Config, set ...endpoints.Endpoint) *running {
	w.t.Helper()
	w.write("endpoints.json", file(set...))
	return w.startWith(cfg)
}

// startWith starts a server on the endpoints file as it is.
func (w *world) startWith(cfg config.Config) *running {
	w.t.Helper()
	log := zaptest.NewLogger(w.t, zaptest.Level(zapcore.InfoLevel))
	if !testing.Verbose() {
		log = zap.NewNop()
	}
	store, err := app.OpenStore(cfg, log)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := app.New(ctx, app.Options{Config: cfg, Store: store, Version: version, Log: log})
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	r := &running{App: s, t: w.t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		if err := r.stop(); err != nil {
			w.t.Errorf("stopping: %v", err)
		}
	})
	return r
}

// stop ends the server in order, once, and returns what it says.
func (r *running) stop() error {
	r.cancel()
	err, open := <-r.done
	if open {
		close(r.done)
	}
	return err
}

// eventually asks until the answer is true.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// settled waits until records were read and every event has its outcome, and
// the offsets of all are committed.
func (r *running) settled(records int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d records read, nothing pending, no lag", records), func() bool {
		st := r.Pipeline.Status()
		if st.Ingest.Records < int64(records) || st.Ingest.Lag != 0 {
			return false
		}
		for _, e := range st.Endpoints {
			if e.Pending != 0 {
				return false
			}
		}
		return true
	})
}

// produce writes records to the ingest topic, in order, and waits until they
// are stored. A record without a topic goes there; its Partition is where.
func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	if err := w.client.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func value(v string) *kgo.Record { return &kgo.Record{Value: []byte(v)} }

// committed gives the group's committed offset of a partition.
func (w *world) committed(partition int32) int64 {
	w.t.Helper()
	offsets, err := kadm.NewClient(w.client).FetchOffsets(w.t.Context(), "twinegress")
	if err != nil {
		w.t.Fatal(err)
	}
	o, ok := offsets.Lookup(ingestTopic, partition)
	if !ok {
		return -1
	}
	return o.At
}

// deadLetters reads n records of the dead-letter topic.
func (w *world) deadLetters(n int) (letters []*kgo.Record) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addrs()...), kgo.ConsumeTopics(deadLetterTopic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for len(letters) < n {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			w.t.Fatalf("%d dead letters, want %d", len(letters), n)
		}
		letters = append(letters, fetches.Records()...)
	}
	return letters
}

func headersOf(r *kgo.Record) map[string]string {
	headers := make(map[string]string)
	for _, h := range r.Headers {
		if _, ours := headers[h.Key]; !ours { // ours come first
			headers[h.Key] = string(h.Value)
		}
	}
	return headers
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body.String()
}

// samples are the documented events by name, as they are in the files.
func samples(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../stages/testdata/events/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	all := make(map[string]string)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "event_"), ".json")
		all[name] = strings.TrimSpace(string(b))
	}
	return all
}
