// Package env is what surrounds twinegress in a test: a Kafka topic and a
// consumer group, the emulated services, the files of a configuration, and a
// ledger of what was delivered. The tests in e2e run processes in it, those of
// cmd/twinegress parts of the program.
package env

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/emulator"
	"twinegress/internal/eventually"
	"twinegress/pipeline"
)

// Timeout bounds every wait of a test.
const Timeout = 60 * time.Second

// Token is that of the Management API, with the role write.
const Token = "the token of the tests"

// hubPartitions are fewer than the Kafka partitions of most tests, so that
// several of these share one.
const hubPartitions = 4

// maxMessageBytes is that of the ingest topic.
const maxMessageBytes = 4 << 20

// Eventually blocks until a condition holds, and fails the test after Timeout.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	eventually.Within(t, Timeout, what, holds)
}

// Config describes an environment.
type Config struct {
	// Brokers are those of a cluster that is there; without any, the environment
	// starts an embedded broker of its own.
	Brokers []string
	// Partitions of the ingest topic; 0 creates none.
	Partitions  int
	TopicConfig map[string]string
	// Services changes what is emulated: the hubs "hub" and "devices", the
	// Service Bus topic "topic" and the Event Grid topic "grid". Where Record is
	// 0, the ledger has nothing either.
	Services func(*emulator.Config)
}

// Env is one environment. Its topic and its group have names of their own.
// It has a method for each thing that a test makes, changes or awaits around the
// program.
type Env struct {
	T           testing.TB
	Dir         string // of the files
	Brokers     []string
	Topic       string
	DeadLetters string // the topic's name
	Group       string
	Client      *kgo.Client
	Admin       *kadm.Client
	Kafka       *emulator.Kafka   // the embedded broker; nil with Config.Brokers
	Network     *emulator.Network // its own; nil with Config.Brokers
	Services    *emulator.Emulator
	Ledger      *Ledger

	partitions int
	made       int // by Events
}

// notInNames can't be in a topic's name.
var notInNames = regexp.MustCompile(`[^a-zA-Z0-9]+`)

// New starts an environment, which ends with the test.
func New(t testing.TB, cfg Config) *Env {
	t.Helper()
	name := fmt.Sprintf("%s-%d", notInNames.ReplaceAllString(t.Name(), "-"), time.Now().UnixNano())
	e := &Env{
		T: t, Dir: t.TempDir(), Brokers: cfg.Brokers, Topic: name, DeadLetters: name + "-dead", Group: name, partitions: cfg.Partitions,
	}
	services := emulator.Config{
		Hubs:            []emulator.Hub{{Name: "hub", Partitions: hubPartitions}, {Name: "devices", Partitions: 2}},
		Topics:          []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
		Record:          1 << 16,
		TrackIDs:        true,
	}
	if cfg.Services != nil {
		cfg.Services(&services)
	}
	e.Ledger = newLedger(name, services.Hubs)
	if services.Record > 0 {
		services.Arrived = e.Ledger.arrived
	}
	var err error
	e.Services, err = emulator.Start(t.Context(), services)
	e.Must(err)
	t.Cleanup(func() {
		if err := e.Services.Close(); err != nil {
			t.Error(err)
		}
	})
	if e.Brokers == nil {
		e.Network = new(emulator.Network)
		e.Kafka, err = emulator.StartKafka(emulator.KafkaConfig{MaxMessageBytes: 2 * maxMessageBytes, Network: e.Network})
		e.Must(err)
		t.Cleanup(e.Kafka.Close)
		e.Brokers = e.Kafka.Addrs()
	}
	e.Client = e.NewClient(kgo.ProducerBatchMaxBytes(maxMessageBytes))
	e.Admin = kadm.NewClient(e.Client)
	if cfg.Partitions > 0 {
		e.CreateTopic(cfg.Partitions, cfg.TopicConfig)
	}
	e.Write("ca.pem", e.Services.CAPEM())
	return e
}

// Must fails the test unless err is nil.
func (e *Env) Must(err error) {
	e.T.Helper()
	if err != nil {
		e.T.Fatal(err)
	}
}

// NewClient returns a client that produces to the ingest topic, each record to
// its partition, and soon notices a change of the cluster.
func (e *Env) NewClient(more ...kgo.Opt) *kgo.Client {
	e.T.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(e.Brokers...), kgo.DefaultProduceTopic(e.Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(200 * time.Millisecond), kgo.MetadataMaxAge(time.Second),
	}, more...)...)
	e.Must(err)
	e.T.Cleanup(client.Close)
	return client
}

// Context ends after Timeout.
func (e *Env) Context() context.Context {
	ctx, cancel := context.WithTimeout(e.T.Context(), Timeout)
	e.T.Cleanup(cancel)
	return ctx
}

// CreateTopic creates the ingest topic, replicated to up to three brokers.
func (e *Env) CreateTopic(partitions int, config map[string]string) {
	e.T.Helper()
	limit := strconv.Itoa(maxMessageBytes)
	values := map[string]*string{"max.message.bytes": &limit}
	for k, v := range config {
		values[k] = &v
	}
	Eventually(e.T, "the topic "+e.Topic+" is created", func() bool {
		_, err := e.Admin.CreateTopic(e.Context(), int32(partitions), -1, values, e.Topic)
		if errors.Is(err, kerr.TopicAlreadyExists) { // one of that name is still being deleted
			return false
		}
		e.Must(err)
		return true
	})
}

// Write replaces a file of the environment in one go, and returns its path.
func (e *Env) Write(name string, content []byte) string {
	e.T.Helper()
	path := filepath.Join(e.Dir, name)
	e.Must(os.WriteFile(path+".new", content, 0o600))
	e.Must(os.Rename(path+".new", path))
	return path
}

// Settings are keys of the configuration.
type Settings map[string]string

// Settings returns the configuration of a copy in this environment.
func (e *Env) Settings(more Settings) Settings {
	e.T.Helper()
	all := Settings{
		"ingest.brokers":          strings.Join(e.Brokers, ","),
		"ingest.topics":           e.Topic,
		"ingest.group":            e.Group,
		"ingest.sessionTimeout":   "6s",
		"ingest.rebalanceTimeout": "40s",
		"send.timeout":            "10s",
		"send.caFile":             filepath.Join(e.Dir, "ca.pem"),
		"backoff.initial":         "200ms",
		"deadLetter.topic":        e.DeadLetters,
		"status.topic":            e.Topic + "-status",
		"positions.topic":         e.Topic + "-positions",
		"endpoints.file":          filepath.Join(e.Dir, "endpoints.json"),
		"ops.listen":              "127.0.0.1:0",
		"api.listen":              "127.0.0.1:0",
		"api.tokensFile": e.Write("tokens.yaml",
			fmt.Appendf(nil, "[{name: tests, role: write, sha256: %x}]", sha256.Sum256([]byte(Token)))),
		"api.rateLimit":                      "1000000",
		"endpoints.allowDevelopmentEmulator": "true",
	}
	maps.Copy(all, more)
	return all
}

// Variables returns the settings as environment variables.
func (s Settings) Variables() []string {
	env := make([]string, 0, len(s))
	for key, value := range s {
		env = append(env, "TWINEGRESS_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+"="+value)
	}
	return env
}

// AwaitSettled blocks until a copy, alone in its group, has read so many records
// since its start, and each event has its outcome.
func (e *Env) AwaitSettled(records int, status func() pipeline.Status) (st pipeline.Status) {
	e.T.Helper()
	Eventually(e.T, fmt.Sprintf("%d records read, nothing pending, no lag", records), func() bool {
		st = status()
		return st.Ingest.Records >= int64(records) && st.Ingest.CaughtUp() &&
			!slices.ContainsFunc(st.Endpoints, func(ep pipeline.EndpointStatus) bool { return ep.Pending != 0 })
	})
	return st
}

// SetFault injects a fault into entities of the services.
func (e *Env) SetFault(f emulator.Fault, entities ...string) {
	e.T.Helper()
	for _, entity := range entities {
		e.Must(e.Services.SetFault(entity, f))
	}
}

// Repair ends the faults of entities.
func (e *Env) Repair(entities ...string) {
	e.T.Helper()
	for _, entity := range entities {
		e.Must(e.Services.ClearFault(entity))
	}
}

// Count returns how many messages an entity has stored, repeats included.
func (e *Env) Count(entity string) int { return int(e.Services.Stats().Entity(entity).Count) }
