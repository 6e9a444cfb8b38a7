package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
	"twinegress/internal/config"
)

// ageKey writes a key file, whose key is a secret as well.
func (w secretWorld) ageKey(name string) string {
	w.t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		w.t.Fatal(err)
	}
	w.secrets["the key "+name] = key.String()
	return w.write(name, []byte(key.String()))
}

// sealedForOthers is a record of an endpoint whose secrets are encrypted with
// a key that the server doesn't have.
func (w secretWorld) sealedForOthers(id string) []byte {
	w.t.Helper()
	keyring, _, err := secrets.Load(w.ageKey("others.key"))
	if err != nil {
		w.t.Fatal(err)
	}
	e := w.set[1]
	e.ID = id
	record, err := endpoints.Encode(e, keyring.Box(nil).Seal)
	if err != nil {
		w.t.Fatal(err)
	}
	return record
}

// startLogged starts a server and gives what it logs, all there is.
func (w *world) startLogged(cfg config.Config) (*running, *buffer) {
	w.t.Helper()
	logged := new(buffer)
	store, err := app.OpenStore(cfg, logged.logger())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := app.New(ctx, app.Options{Config: cfg, Store: store, Version: version, Log: logged.logger()})
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	r := &running{App: s, t: w.t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	w.t.Cleanup(func() { _ = r.stop() })
	return r, logged
}

// No secret shows where the endpoints are in a topic: not in the topic, and
// not in what is said about records that can't be read and about brokers that
// fail.
func TestNoSecretAroundTheEndpointsTopic(t *testing.T) {
	w := newSecretWorld(t)
	w.cfg.Endpoints.Store = config.StoreKafka
	w.cfg.Endpoints.SecretsKeyFile = w.ageKey("secrets.key")
	topic := w.cfg.Endpoints.Topic
	r, logged := w.startLogged(w.cfg)
	eventually(t, "an API that answers", func() bool { status, _ := r.manage(http.MethodGet, "/endpoints", nil); return status == http.StatusOK })
	var ids []string
	for _, e := range w.set {
		ids = append(ids, r.create(e))
	}
	stored := w.records(topic)
	if n := strings.Count(stored, "connectionString"); n < len(w.set) {
		t.Errorf("the topic has %d connection strings: %s", n, stored)
	}
	w.secrets.check(t, "the topic", stored)

	put := func(key string, value []byte) {
		w.produce(&kgo.Record{Topic: topic, Key: []byte(key), Value: value})
	}
	const id, conn = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d", "connectionString"
	fault := func(f kfake.Fault) { f.TopLevel = true; w.kafka.Cluster.Fault(f) }
	var replies string
	changes := 0
	change := func() {
		changes++ // what changes nothing isn't written
		e := w.hub("SensorChange")
		e.Filter = fmt.Sprintf("$body.n != %d", changes)
		_, reply := r.manage(http.MethodPut, "/endpoints/"+ids[0], entry(e))
		replies += reply
	}
	for _, trouble := range []struct {
		name  string
		cause func()
		says  string // in the log, or to who asks for a change
	}{
		{"half a record", func() { put(id, entry(w.set[3])[:200]) }, "is not valid JSON"},
		{"no endpoint", func() { put(id, []byte(`"`+w.set[0].ConnectionString+`"`)) }, "must be a JSON object"},
		{"keys in other fields", func() {
			put(id, []byte(`{"type":"`+w.set[0].ConnectionString+`","path":"`+w.set[3].ConnectionString+`","`+w.set[0].ConnectionString+`":1,"body":"`+w.set[2].ConnectionString+`"}`))
		}, "unknown field"},
		{"a broken connection string", func() { put(id, withField(w.set[3], conn, strings.Replace(w.set[3].ConnectionString, "sb://", "", 1))) }, "Endpoint must start with sb://"},
		{"another endpoint than the key says", func() { put(id, withField(w.set[0], "id", ids[0])) }, "holds another endpoint than its key says"},
		{"the name of another", func() { put(id, withField(w.set[0], "id", id)) }, "can't be beside another"},
		{"encrypted for others", func() { put(id, w.sealedForOthers(id)) }, "can't be read"},
		{"a change while a record can't be read", change, "no endpoint can be changed while this copy can't read"},
		{"a commit of which nothing is known", func() {
			put(id, nil)
			fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError})
			eventually(t, "the record is gone", func() bool { return len(r.Store.Current()) == len(w.set) })
			change()
		}, "may be in the endpoints topic or not"},
		{"no producer id", func() {
			fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.UnknownServerError})
			change()
		}, "asking for the transactional id"},
		{"no permission", func() {
			fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.TransactionalIDAuthorizationFailed})
			change()
		}, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"},
		{"another copy", func() { fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ProducerFenced}); change() }, "another copy changes the endpoints"},
		{"a topic that begins anew", func() {
			admin := kadm.NewClient(w.client)
			if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
				t.Fatal(err)
			}
		}, "following the endpoints topic"},
	} {
		log := logged.take()
		replies = ""
		trouble.cause()
		eventually(t, trouble.name+": somebody is told "+trouble.says, func() bool {
			log += logged.take()
			return strings.Contains(log+replies, trouble.says)
		})
		_, list := r.manage(http.MethodGet, "/endpoints", nil)
		_, metrics := get(t, "http://"+r.OpsAddress()+"/metrics", "")
		for where, text := range map[string]string{"log": log, "replies": replies, "list": list, "metrics": metrics} {
			w.secrets.check(t, trouble.name+": "+where, text)
		}
	}
	if err := r.stop(); err != nil {
		w.secrets.check(t, "the error of run", err.Error())
	}
	w.secrets.check(t, "the log of stopping", logged.take())
}

// withField is an endpoint's JSON with one field changed.
func withField(e endpoints.Endpoint, name, value string) []byte {
	var fields map[string]any
	if err := json.Unmarshal(entry(e), &fields); err != nil {
		panic(err)
	}
	fields[name] = value
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return b
}

// records are the values of all records of a topic, a line each.
func (w *world) records(topic string) string {
	w.t.Helper()
	offsets, err := kadm.NewClient(w.client).ListEndOffsets(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	end, _ := offsets.Lookup(topic, 0)
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var all strings.Builder
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			all.Write(r.Value)
			all.WriteByte('\n')
		})
	}
	return all.String()
}
