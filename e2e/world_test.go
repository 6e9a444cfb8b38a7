//go:build integration

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/emulator"
)

const patience = 60 * time.Second // how long a test waits for what must happen

// eventually asks until the answer is true.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	eventuallyWithin(t, patience, what, holds)
}

func eventuallyWithin(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// world is everything around the copies of twinegress: a topic and a group of
// its own on a cluster, and services that note what arrives.
type world struct {
	t        testing.TB
	dir      string
	brokers  []string
	topic    string
	group    string
	client   *kgo.Client // of the tests themselves
	admin    *kadm.Client
	services *emulator.Emulator
	ledger   *ledger
}

// hubPartitions is less than the Kafka partitions that tests have, so that
// several of these share one.
const hubPartitions = 4

// notInNames can't be in a topic's name.
var notInNames = regexp.MustCompile(`[^a-zA-Z0-9]+`)

// newWorld makes a world with a topic of that many partitions; 0 makes none.
func newWorld(t testing.TB, brokers []string, partitions int, topicConfig map[string]string) *world {
	t.Helper()
	name := fmt.Sprintf("%s-%d", notInNames.ReplaceAllString(t.Name(), "-"), time.Now().UnixNano())
	w := &world{t: t, dir: t.TempDir(), brokers: brokers, topic: name, group: name, ledger: newLedger()}
	var err error
	w.services, err = emulator.Start(t.Context(), emulator.Config{
		Hubs:            []emulator.Hub{{Name: "hub", Partitions: hubPartitions}, {Name: "devices", Partitions: 2}},
		Topics:          []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
		Record:          1 << 16,
		Arrived:         w.ledger.arrived,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.services.Close(); err != nil {
			t.Error(err)
		}
	})
	w.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(w.topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(200*time.Millisecond), kgo.MetadataMaxAge(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	w.admin = kadm.NewClient(w.client)
	if partitions > 0 {
		w.createTopic(partitions, topicConfig)
	}
	w.write("ca.pem", w.services.CAPEM())
	w.setEndpoints(w.hub(), w.serviceBus())
	return w
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// createTopic creates the ingest topic, in as many copies as there are brokers up to three.
func (w *world) createTopic(partitions int, config map[string]string) {
	w.t.Helper()
	values := make(map[string]*string)
	for k, v := range config {
		values[k] = &v
	}
	eventually(w.t, "the topic "+w.topic+" is created", func() bool {
		_, err := w.admin.CreateTopic(w.ctx(), int32(partitions), -1, values, w.topic)
		if errors.Is(err, kerr.TopicAlreadyExists) { // one of that name is still being deleted
			return false
		}
		if err != nil {
			w.t.Fatal(err)
		}
		return true
	})
}

func (w *world) write(name string, content []byte) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// endpoint is an entry of the endpoints file.
type endpoint map[string]any

func (w *world) amqp(kind, name string, eventTypes ...string) endpoint {
	if len(eventTypes) == 0 {
		eventTypes = []string{"SensorChange"}
	}
	return endpoint{
		"name": name, "type": kind, "path": name, "eventTypes": eventTypes,
		"connectionString":          w.services.EntityConnectionString(name, emulator.Primary),
		"secondaryConnectionString": w.services.EntityConnectionString(name, emulator.Secondary),
	}
}

func (w *world) hub(eventTypes ...string) endpoint { return w.amqp("EventHub", "hub", eventTypes...) }

func (w *world) serviceBus(eventTypes ...string) endpoint {
	return w.amqp("ServiceBus", "topic", eventTypes...)
}

func (w *world) grid(eventTypes ...string) endpoint {
	return endpoint{
		"name": "grid", "type": "EventGrid", "path": w.services.EventGridHost("grid"), "eventTypes": eventTypes,
		"connectionString":          w.services.EventGridKey("grid", emulator.Primary),
		"secondaryConnectionString": w.services.EventGridKey("grid", emulator.Secondary),
	}
}

func (w *world) setEndpoints(set ...endpoint) {
	w.t.Helper()
	b, err := json.Marshal(set)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("endpoints.json", b)
}

// settings are keys of the configuration.
type settings map[string]string

// environment is the configuration of a copy, as environment variables.
func (w *world) environment(more settings) []string {
	w.t.Helper()
	all := settings{
		"ingest.brokers":          strings.Join(w.brokers, ","),
		"ingest.topics":           w.topic,
		"ingest.group":            w.group,
		"ingest.sessionTimeout":   "6s",
		"ingest.rebalanceTimeout": "15s",
		"send.timeout":            "4s",
		"send.caFile":             filepath.Join(w.dir, "ca.pem"),
		"deadLetter.topic":        w.topic + "-dead",
		"endpoints.file":          filepath.Join(w.dir, "endpoints.json"),
		"ops.listen":              "127.0.0.1:0",
		"api.listen":              "127.0.0.1:0",
		"api.tokensFile": w.write("tokens.yaml",
			fmt.Appendf(nil, "[{name: e2e, role: read, sha256: %x}]", sha256.Sum256([]byte(apiToken)))),
		"endpoints.allowDevelopmentEmulator": "true",
	}
	maps.Copy(all, more)
	env := make([]string, 0, len(all))
	for key, value := range all {
		env = append(env, "TWINEGRESS_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+"="+value)
	}
	return env
}
