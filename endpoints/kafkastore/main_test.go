package kafkastore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
	"twinegress/endpoints/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "endpoints"

// remove deletes by name; no matter if it isn't there.
func remove(name string) func([]endpoints.Endpoint) ([]endpoints.Endpoint, error) {
	return func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		return slices.DeleteFunc(set, func(e endpoints.Endpoint) bool { return e.Name == name }), nil
	}
}

// cluster is brokers and one keyring for the copies that use them.
type cluster struct {
	topic   string
	connect []kgo.Opt
	fake    *kfake.Cluster
	keys    *secrets.Keyring
}

func newCluster(t testing.TB, options ...kfake.Opt) *cluster {
	t.Helper()
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	storetest.Must(t, err)
	t.Cleanup(fake.Close)
	return &cluster{topic: topic, connect: []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...)}, fake: fake, keys: storetest.Keyring(t, storetest.AgeKey(t))}
}

// anyCluster is the brokers that KAFKA_BROKERS names, if it is set: what counts
// most is to be seen on the real ones too.
func anyCluster(t testing.TB) *cluster {
	t.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		return newCluster(t)
	}
	return &cluster{
		topic: topic + "-" + uuid.NewString(), connect: []kgo.Opt{kgo.SeedBrokers(strings.Split(brokers, ",")...)},
		keys: storetest.Keyring(t, storetest.AgeKey(t)),
	}
}

// running is a copy's store, loaded and watched.
type running struct {
	*Store
	logs *observer.ObservedLogs
	kill context.CancelFunc
	done chan error
}

func (c *cluster) options(k *secrets.Keyring) (Options, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.InfoLevel)
	return Options{Topic: c.topic, Keyring: k, Connect: c.connect, Logger: zap.New(core)}, logs
}

func (c *cluster) start(t testing.TB, k *secrets.Keyring, connect ...kgo.Opt) *running {
	t.Helper()
	o, logs := c.options(k)
	o.Connect = append(slices.Clone(o.Connect), connect...)
	r := &running{Store: New(o), logs: logs, done: make(chan error, 1)}
	loading, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := r.Load(loading)
	storetest.Must(t, err)
	ctx, kill := context.WithCancel(context.Background())
	r.kill = kill
	go func() {
		r.done <- r.Watch(ctx, func(set []endpoints.Endpoint) {
			devices := 0
			for _, e := range set {
				if e.EventTypes[0] == endpoints.DeviceMessage {
					devices++
				}
			}
			if devices > 1 {
				t.Errorf("%d DeviceMessage endpoints are delivered", devices)
			}
		})
	}()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the copy, and checks that its logs show no secret.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.kill()
	select {
	case err := <-r.done:
		storetest.Must(t, err)
		r.done <- nil // for the next who asks
	case <-time.After(20 * time.Second):
		t.Fatal("Watch doesn't end")
	}
	for _, l := range r.logs.All() {
		storetest.NoSecret(t, "a log line", fmt.Sprint(l.Message, l.ContextMap()))
	}
}

// change waits no longer than a test may.
func (r *running) change(t testing.TB, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return r.Change(ctx, edit)
}

// edit is change, of which no error is expected.
func (r *running) edit(t testing.TB, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) []endpoints.Endpoint {
	t.Helper()
	set, err := r.change(t, edit)
	storetest.Must(t, err)
	return set
}

func (r *running) add(t testing.TB, e endpoints.Endpoint) []endpoints.Endpoint {
	t.Helper()
	return r.edit(t, storetest.Add(e))
}

func isConflict(err error) bool {
	v, ok := errors.AsType[endpoints.ValidationErrors](err)
	return ok && v.Conflict()
}

// all is every record of the topic, the uncommitted too.
func (c *cluster) all(t testing.TB) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.topic: {0: kgo.NewOffset().AtStart()}}),
	}, c.connect...)...)
	storetest.Must(t, err)
	defer client.Close()
	var all []*kgo.Record
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		fetches := client.PollFetches(ctx)
		cancel()
		if fetches.Empty() {
			return all
		}
		all = append(all, fetches.Records()...)
	}
}

// put writes a record past the store.
func (c *cluster) put(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.DefaultProduceTopic(c.topic)}, c.connect...)...)
	storetest.Must(t, err)
	defer client.Close()
	storetest.Must(t, client.ProduceSync(t.Context(), records...).FirstErr())
}

// record is an endpoint as a copy with the cluster's keys writes it.
func (c *cluster) record(t testing.TB, e endpoints.Endpoint) *kgo.Record {
	t.Helper()
	set, err := endpoints.Prepare([]endpoints.Endpoint{e}, endpoints.Options{})
	storetest.Must(t, err)
	value, err := endpoints.Encode(set[0], c.keys.Box(nil).Seal)
	storetest.Must(t, err)
	return &kgo.Record{Key: []byte(set[0].ID), Value: value}
}
