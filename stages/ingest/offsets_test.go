package ingest

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/internal/config"
	"twinegress/internal/eventually"
)

// The lag includes what was never polled.
func TestLag(t *testing.T) {
	const partitions, n = 2, 500
	eachProtocol(t, partitions, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		produce(t, k, partitions, n, 10)
		cfg.MaxInFlightBytes = 1 // one poll, and then none until it is settled
		h := consume(t, cfg, false)
		lag := func(n int64) func() bool { return func() bool { return lagIs(h.Source, n) } }
		eventually.Holds(t, "something is read", func() bool { return h.count() > 0 })
		eventually.Holds(t, "all of it is lag", lag(partitions*n))
		produce(t, k, partitions, n, 10)
		signal(h.offsets.due) // rather than wait for the interval
		eventually.Holds(t, "so is what comes while polling waits", lag(2*partitions*n))
		eventually.Holds(t, "there is none in the end", func() bool {
			h.settle(all)
			return lagIs(h.Source, 0)
		})
		h.stop()

		// Joined again, and nothing new: the offsets that are committed count.
		h = consume(t, cfg, false)
		eventually.Holds(t, "the second one owns them", h.owns(partitions))
		produce(t, k, partitions, 1, 10)
		signal(h.offsets.due)
		eventually.Holds(t, "only what is new is lag", lag(partitions))
		h.settle(all)
		h.stop()

		cfg.Group, cfg.Start = "late", config.StartLatest
		h = consume(t, cfg, false)
		eventually.Holds(t, "the third one owns them", h.owns(partitions))
		eventually.Holds(t, "its lag is known", func() bool { return h.Status().Lag != nil })
		if lag := *h.Status().Lag; lag != 0 {
			t.Errorf("a group that starts with what comes has a lag of %d", lag)
		}
	})
}

// Offsets without an event, as transactions leave them, hold nothing back.
func TestTransactions(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		commits := watchCommits(t, k)
		h := consume(t, cfg, true)
		events := 0
		for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
			transact(t, k, 10*(i+1), end)
			if end == kgo.TryCommit {
				events += 10 * (i + 1)
			}
			offsets := 5*(i+1)*(i+2) + i + 1 // the records so far, and an end each
			eventually.Holds(t, "past the transaction's end", commits.sums(offsets))
			eventually.Holds(t, "no lag", func() bool { return lagIs(h.Source, 0) })
			if got := h.count(); got != events {
				t.Errorf("after %d transactions %d records were read, want %d", i+1, got, events)
			}
		}
	})
}

func transact(t *testing.T, k *kfake.Cluster, n int, end kgo.TransactionEndTry) {
	t.Helper()
	client := newClient(t, k, kgo.TransactionalID("t"))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for range n {
		client.Produce(t.Context(), &kgo.Record{Value: []byte("v")}, nil)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}

// While the coordinator doesn't answer what the group has committed, since its
// log is loaded after a failover, the partition's start is not taken for it:
// marked, it would take the group back there.
func TestNothingIsMarkedBeforeTheGroupAnswers(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	produce(t, k, 1, 100, 10)
	watchCommits(t, k) // none goes back
	first := consume(t, ingestConfig(k), true)
	eventually.Holds(t, "all is read", func() bool { return first.count() == 100 })
	first.stop()

	var loading atomic.Bool
	loading.Store(true)
	k.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if !loading.Load() {
			return nil, nil, false
		}
		answer := r.ResponseKind().(*kmsg.OffsetFetchResponse)
		answer.ErrorCode = kerr.CoordinatorLoadInProgress.Code
		for _, g := range r.(*kmsg.OffsetFetchRequest).Groups {
			group := kmsg.NewOffsetFetchResponseGroup()
			group.Group, group.ErrorCode = g.Group, answer.ErrorCode
			answer.Groups = append(answer.Groups, group)
		}
		return answer, nil, true
	})
	second := consume(t, ingestConfig(k), true)
	eventually.Holds(t, "the partition is assigned", second.owns(1))
	answer := kmsg.OffsetFetchResponse{Groups: []kmsg.OffsetFetchResponseGroup{{Topics: []kmsg.OffsetFetchResponseGroupTopic{{
		Topic: topic, Partitions: []kmsg.OffsetFetchResponseGroupTopicPartition{{Offset: -1, ErrorCode: kerr.UnstableOffsetCommit.Code}},
	}}}}}
	if err := second.offsets.fetched(t.Context(), nil, &answer); err != nil { // nor is an error an answer
		t.Error(err)
	}
	for range 2 {
		if err := second.offsets.refresh(t.Context(), kadm.NewClient(second.member.client)); err != nil {
			t.Fatal(err)
		}
	}
	if lag := second.Status().Lag; lag != nil {
		t.Errorf("lag %d before it is known", *lag)
	}
	if err := second.member.client.CommitMarkedOffsets(t.Context()); err != nil {
		t.Error(err)
	}
	loading.Store(false)
	produce(t, k, 1, 1, 10)
	eventually.Holds(t, "the new record is read", func() bool { return second.count() > 0 })
	if n := second.count(); n != 1 {
		t.Errorf("%d records were read, want the new one only", n)
	}
}
