package e2e

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
)

// Only what was committed by its transaction is sent, and the ends of
// transactions, which are no events, hold up neither the offsets nor the lag.
func transactions(h *harness) {
	producer := h.NewClient(kgo.TransactionalID(h.Topic))
	transact := func(name string, n int, end kgo.TransactionEndTry) {
		h.T.Helper()
		h.Must(producer.BeginTransaction())
		for i := range n {
			producer.Produce(h.T.Context(), &kgo.Record{Value: fmt.Appendf(nil, `{"id":"%s-%d","eventType":"SensorChange"}`, name, i)}, nil)
		}
		h.Must(producer.Flush(h.Context()))
		h.Must(producer.EndTransaction(h.Context(), end))
	}
	r := h.run("one", nil)
	transact("good", 100, kgo.TryCommit)
	h.allCommitted(r)
	transact("bad", 50, kgo.TryAbort)
	h.allCommitted(r)
	transact("fine", 70, kgo.TryCommit)
	transact("worse", 10, kgo.TryAbort)
	h.allCommitted(r)
	got := make(map[string]int)
	for _, m := range h.Services.Messages("hub") {
		name, _, _ := strings.Cut(strings.TrimPrefix(string(m.Body), `{"id":"`), "-")
		got[name]++
	}
	if want := map[string]int{"good": 100, "fine": 70}; !maps.Equal(got, want) {
		h.T.Errorf("delivered %v, want %v", got, want)
	}
}

// A compacted topic has gaps, and tombstones.
func compacted(h *harness) {
	h.CreateTopic(1, map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.bytes": "1048576", "segment.ms": "500",
		"max.compaction.lag.ms": "500", "delete.retention.ms": "3600000",
	})
	put := func(from, to int) {
		h.T.Helper()
		var records []*kgo.Record
		for i := from; i < to; i++ {
			records = append(records, &kgo.Record{Key: []byte(strconv.Itoa(i % 100)), Value: env.Event(0, int64(i))})
		}
		h.Produce(records...)
	}
	const n = 2000
	put(0, n)
	next := n
	env.Eventually(h.T, "the topic is compacted", func() bool {
		put(next, next+1) // a new record is what rolls an old segment
		next++
		client := h.NewClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{h.Topic: {0: kgo.NewOffset().AtStart()}}))
		defer client.Close()
		records := client.PollRecords(h.Context(), 1).Records()
		return len(records) > 0 && records[0].Offset > 1000
	})
	h.Produce(&kgo.Record{Key: []byte("1")}) // a tombstone: no event
	r := h.run("one", nil)
	h.allCommitted(r)
	last := int64(-1)
	got := 0
	for _, m := range h.Services.Messages("topic") {
		offset, err := strconv.ParseInt(path.Base(m.MessageID), 10, 64)
		if err != nil || offset <= last {
			h.T.Errorf("message %s after %d (%v)", m.MessageID, last, err)
		}
		last = offset
		got++
	}
	if got < 100 || got > n/2 {
		h.T.Errorf("%d events of 100 keys arrived", got)
	}
	if letters := h.Records(h.DeadLetters, 1); env.HeadersOf(letters[0])["reason"] != "undecodable" || letters[0].Value != nil {
		h.T.Errorf("the tombstone became %v", letters[0])
	}
}

// Where a new group begins, and an old one goes on.
func startOfGroup(h *harness) {
	h.Produce(h.Events(2)...)
	late := h.run("late", env.Settings{"ingest.start": "latest"})
	env.Eventually(h.T, "it has found the end, and says so", func() bool { return h.Committed()[0] == 2 })
	h.Produce(h.Events(1)...)
	h.allCommitted(late)
	if got := h.Services.Messages("hub"); len(got) != 1 || !strings.HasSuffix(got[0].MessageID, "/0/2") {
		h.T.Errorf("a group that starts with what comes got %v", got)
	}
	late.stop()
	h.Produce(h.Events(1)...)
	again := h.run("again", env.Settings{"ingest.start": "latest"})
	h.allCommitted(again)
	if got := len(h.Services.Messages("hub")); got != 2 {
		h.T.Errorf("after a restart %d have arrived, want 2", got)
	}
	h.Group += "-early"
	early := h.run("early", nil)
	h.allCommitted(early)
	if got := len(h.Services.Messages("hub")); got != 6 {
		h.T.Errorf("after a group that starts at the beginning %d have arrived, want 6", got)
	}
}

// Retention has taken what the group would go on with: it goes on with the
// oldest there is, also where a new group would start with what comes.
func retention(h *harness) {
	h.Produce(h.Events(1)...)
	first := h.run("first", nil)
	h.allCommitted(first)
	first.stop()
	h.Produce(h.Events(9)...)
	var expired kadm.Offsets
	expired.AddOffset(h.Topic, 0, 5, -1)
	_, err := h.Admin.DeleteRecords(h.Context(), expired)
	h.Must(err)
	second := h.run("second", env.Settings{"ingest.start": "latest"})
	h.allCommitted(second)
	var got []string
	for _, m := range h.Services.Messages("hub") {
		got = append(got, path.Base(m.MessageID))
	}
	if want := []string{"0", "5", "6", "7", "8", "9"}; !slices.Equal(got, want) {
		h.T.Errorf("delivered %v, want %v", got, want)
	}
}

// A partition that is added is read from its beginning, wherever a new group
// would start.
func partitionAdded(start string) func(*harness) {
	return func(h *harness) {
		r := h.run("one", env.Settings{"ingest.start": start})
		h.Produce(&kgo.Record{Value: env.Event(0, 0)})
		h.allCommitted(r)
		_, err := h.Admin.UpdatePartitions(h.Context(), 2, h.Topic)
		h.Must(err)
		env.Eventually(h.T, "the new partition can be written to", func() bool {
			return h.Client.ProduceSync(h.Context(), &kgo.Record{Partition: 1, Value: env.Event(1, 0)}).FirstErr() == nil
		})
		h.Produce(&kgo.Record{Partition: 1, Value: env.Event(1, 1)})
		env.Eventually(h.T, "the new partition is read from its beginning", func() bool { return h.Ledger.Complete("hub", 1) == 2 })
		h.allCommitted(r)
	}
}

// Two copies with one instanceId: one of them ends, loudly; the other one goes on.
func sameInstanceID(h *harness) {
	first := h.run("first", env.Settings{"ingest.instanceId": "pod-0"})
	second := h.run("second", env.Settings{"ingest.instanceId": "pod-0"})
	if code := first.wait(); code != 1 {
		h.T.Errorf("the copy whose place was taken ended with exit code %d", code)
	}
	if log := first.log.Tail(5); !strings.Contains(log, `ingest.instanceId \"pod-0\" has taken it`) && !strings.Contains(log, `ingest.instanceId "pod-0" has taken it`) {
		h.T.Errorf("it doesn't say why:\n%s", log)
	}
	h.Produce(h.Events(2)...)
	h.allCommitted(second)
	second.stop()
}

// With the consumer protocol the brokers keep the place of a copy that has
// crashed for the session time-out; the one after it waits for that.
func staticCrash(h *harness) {
	r := h.run("one", env.Settings{"ingest.instanceId": "pod-0"})
	h.Produce(h.Events(1)...)
	h.allCommitted(r)
	r.kill()
	r.start()
	r.awaitReady()
	h.Produce(h.Events(1)...)
	h.allCommitted(r)
	h.arrived(2, "hub")
}

// The ingest topic isn't there yet: it says so, and goes on when it is.
func topicLater(h *harness) {
	r := h.replica("one", nil)
	r.start()
	env.Eventually(h.T, "it says that the topic is missing", func() bool { return r.logged("the ingest topic does not exist", h.Topic) })
	h.CreateTopic(1, nil)
	env.Eventually(h.T, "the topic can be written to", func() bool {
		return h.Client.ProduceSync(h.Context(), &kgo.Record{Value: env.Event(0, 0)}).FirstErr() == nil
	})
	r.awaitReady()
	h.allCommitted(r)
}

// The ingest topic is deleted and made anew: the copy ends, and says why. The
// next one reads the new topic from its beginning.
func topicAnew(h *harness) {
	r := h.run("one", nil)
	h.Produce(h.Events(10)...)
	h.allCommitted(r)
	_, err := h.Admin.DeleteTopics(h.Context(), h.Topic)
	h.Must(err)
	h.CreateTopic(1, nil)
	client := h.NewClient() // the other one knows the old topic
	env.Eventually(h.T, "the topic can be written to", func() bool {
		return client.ProduceSync(h.Context(), &kgo.Record{Value: []byte(`{"id":"anew","eventType":"SensorChange"}`)}).FirstErr() == nil
	})
	if code := r.wait(); code != 1 || !r.logged("was deleted, and perhaps made anew") {
		h.T.Errorf("it ended with exit code %d:\n%s", code, r.log.Tail(5))
	}
	r.start()
	env.Eventually(h.T, "what is in the new topic arrives", func() bool {
		got := h.Services.Messages("hub")
		return len(got) > 0 && strings.Contains(string(got[len(got)-1].Body), "anew")
	})
}

// An endpoint is slower than its events come, for longer than any time-out of
// the group. Polling waits for it; the copy stays in the group, nothing is
// dropped, and the lag says how far it is behind.
func slowHoldsBack(h *harness) {
	const partitions, n = 4, 60_000
	h.SetFault(emulator.Fault{Delay: emulator.Duration(time.Second)}, "hub")
	r := h.run("one", env.Settings{
		"ingest.maxInFlightBytes": "1MiB", "send.timeout": "4s", "ingest.rebalanceTimeout": "15s",
		"batch.maxEvents": "17", // a batch takes 1 s, so a lane does 17 events a second
	})
	env.Eventually(h.T, "it has all partitions", func() bool { return len(r.status().Ingest.Partitions) == partitions })
	h.Produce(h.Events(n / 2)...)
	env.Eventually(h.T, "the endpoint holds back", func() bool { return r.at("hub").HoldsBack })
	h.Produce(h.Events(n / 2)...)
	held := r.status().Ingest.Records
	env.Eventually(h.T, "what comes while it holds back counts as lag", func() bool {
		lag := r.status().Ingest.Lag
		return lag != nil && *lag > n/2
	})
	// Longer than the session time-out and the rebalance time-out together.
	until := time.Now().Add(22 * time.Second)
	env.Eventually(h.T, "it is held back for longer than the group's time-outs", func() bool { return time.Now().After(until) })
	st := r.status()
	if st.Ingest.Records > held+n/4 {
		h.T.Errorf("%d records were read meanwhile: polling was not held back", st.Ingest.Records-held)
	}
	if len(st.Ingest.Partitions) != partitions || r.logged("partitions lost") || r.logged("partitions revoked") {
		h.T.Errorf("it was expelled from the group: it has %v", st.Ingest.Partitions)
	}
	h.Repair("hub")
	h.allCommitted(r)
	for _, e := range r.status().Endpoints {
		if e.Delivered != n || e.Routed != n {
			h.T.Errorf("%s: %d of %d were delivered, want %d", e.Path, e.Delivered, e.Routed, n)
		}
	}
}
