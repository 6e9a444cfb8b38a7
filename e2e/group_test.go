//go:build integration

package e2e

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Two copies with one instanceId: one of them ends, loudly; the other one goes on.
func TestTwoWithOneInstanceID(t *testing.T) {
	w := newWorld(t, brokers(t), 2, nil)
	first := w.run("first", settings{"ingest.instanceId": "pod-0"})
	second := w.run("second", settings{"ingest.instanceId": "pod-0"})
	if code := first.wait(); code != 1 {
		t.Errorf("the copy whose place was taken ended with exit code %d", code)
	}
	if log := tail(first.log, 5); !strings.Contains(log, `ingest.instanceId \"pod-0\" has taken it`) && !strings.Contains(log, `ingest.instanceId "pod-0" has taken it`) {
		t.Errorf("it doesn't say why:\n%s", log)
	}
	w.produce(&kgo.Record{Value: event(0, 0)}, &kgo.Record{Partition: 1, Value: event(1, 0)})
	w.allCommitted(second)
	if code := second.stop(); code != 0 {
		t.Errorf("the other one ended with exit code %d", code)
	}
}

// With the consumer protocol the brokers keep the place of a copy that has
// crashed for the session time-out; the one after it waits for that.
func TestStaticCopyCrashes(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			w := newWorld(t, brokers(t), 2, nil)
			r := w.run("one", settings{"ingest.protocol": protocol, "ingest.instanceId": "pod-0"})
			w.produce(&kgo.Record{Value: event(0, 0)})
			w.allCommitted(r)
			r.kill()
			r.start()
			r.awaitReady()
			w.produce(&kgo.Record{Value: event(0, 1)})
			w.allCommitted(r)
			if n := w.ledger.count("hub"); n != 2 {
				t.Errorf("%d events arrived, want 2", n)
			}
		})
	}
}

// The ingest topic isn't there yet: it says so, and goes on when it is.
func TestTopicComesLater(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel() // it takes up to 30 s until the topic is noticed
			w := newWorld(t, brokers(t), 0, nil)
			r := w.replica("one", settings{"ingest.protocol": protocol})
			r.start()
			eventually(t, "it says that the topic is missing", func() bool { return r.logged("the ingest topic does not exist", w.topic) })
			w.createTopic(1, nil)
			eventually(t, "the topic can be written to", func() bool {
				return w.client.ProduceSync(w.ctx(), &kgo.Record{Value: event(0, 0)}).FirstErr() == nil
			})
			r.awaitReady()
			w.allCommitted(r)
		})
	}
}

// The ingest topic is deleted and made anew: the copy ends, and says why. The
// next one reads the new topic from its beginning.
func TestTopicMadeAnew(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, brokers(t), 1, nil)
			r := w.run("one", settings{"ingest.protocol": protocol})
			for i := range int64(10) {
				w.produce(&kgo.Record{Value: event(0, i)})
			}
			w.allCommitted(r)
			if _, err := w.admin.DeleteTopics(w.ctx(), w.topic); err != nil {
				t.Fatal(err)
			}
			w.createTopic(1, nil)
			client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.DefaultProduceTopic(w.topic)) // the other one knows the old topic
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			eventually(t, "the topic can be written to", func() bool {
				return client.ProduceSync(w.ctx(), &kgo.Record{Value: []byte(`{"id":"anew","eventType":"SensorChange"}`)}).FirstErr() == nil
			})
			if code := r.wait(); code != 1 || !r.logged("was deleted, and perhaps made anew") {
				t.Errorf("it ended with exit code %d:\n%s", code, tail(r.log, 5))
			}
			r.start()
			eventually(t, "what is in the new topic arrives", func() bool {
				got := w.services.Messages("hub")
				return len(got) > 0 && strings.Contains(string(got[len(got)-1].Body), "anew")
			})
		})
	}
}
