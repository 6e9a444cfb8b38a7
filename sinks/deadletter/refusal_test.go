package deadletter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// noise can't be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// A letter that the topic refuses for its size or its content is stored with as
// much of it as the topic takes, and says what is missing.
func TestRefusedLetterIsCut(t *testing.T) {
	const limit = 100_000
	small := []byte("v")
	repeated := bytes.Repeat(noise(80_000), 20) // whose repeats are further apart than 64 KiB
	for title, test := range map[string]struct {
		limit   int
		key     []byte
		value   []byte
		own     []byte // a header's value
		refused *kerr.Error
		times   int32 // that it is refused
		kept    int   // bytes of the value
		cut     string
		forms   uint64 // of Status.Cut
	}{
		"below the limit":                 {limit: limit, value: noise(limit - 2000), kept: limit - 2000},
		"above the limit":                 {limit: limit, value: noise(limit + 2000), kept: cutValue, cut: "value", forms: 1},
		"above the limit, but packed":     {limit: limit, value: repeated, kept: len(repeated)},
		"too large for that, too":         {limit: 5000, value: noise(20_000), kept: 0, cut: "headers,value", forms: 1},
		"a large header":                  {limit: limit, value: small, own: noise(limit), kept: 1, cut: "headers", forms: 1},
		"a large key":                     {limit: limit, value: small, key: noise(limit), kept: 1, cut: "key", forms: 1},
		"all of it is large":              {limit: limit, value: noise(limit), key: noise(limit), own: noise(limit), kept: cutValue, cut: "key,headers,value", forms: 1},
		"larger than is tried":            {limit: limit, value: make([]byte, maxWhole), kept: cutValue, cut: "value", forms: 1},
		"as large as is tried":            {limit: limit, value: make([]byte, maxWhole-ownBytes-1000), kept: maxWhole - ownBytes - 1000},
		"refused in its batch":            {limit: limit, value: small, refused: kerr.MessageTooLarge, times: 1, kept: 1},
		"refused by itself":               {limit: limit, value: small, refused: kerr.InvalidRecord, times: 2, kept: 1, forms: 1},
		"refused by itself, and when cut": {limit: limit, value: small, refused: kerr.CorruptMessage, times: 3, kept: 0, cut: "headers,value", forms: 1},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k := cluster(t)
			if err := k.CreateTopic(name, 1, map[string]string{"max.message.bytes": strconv.Itoa(test.limit)}); err != nil {
				t.Fatal(err)
			}
			topic := open(t, k)
			if test.refused != nil {
				refused := refuse(k, test.refused)
				refused.left.Store(test.times)
			}
			ev, settled := newLetter(test.key, test.value, event.NoIndex, event.Header{Key: "own", Value: test.own}, event.Header{Key: "small"})
			topic.Put(ev, event.Undecodable, "why", nil)
			eventually.Holds(t, "it is stored", func() bool { return settled.Load() == 1 })
			if s := topic.Status(); s.Cut != test.forms || s.Waiting != 0 || s.GivenUp != [event.NumReasons]uint64{} {
				t.Errorf("status %+v", s)
			}
			got := read(t, k, 1)[0]
			of := make(map[string]string)
			for _, h := range got.Headers {
				of[h.Key] = string(h.Value)
			}
			if string(got.Value) != string(test.value[:test.kept]) || of["cut"] != test.cut {
				t.Errorf("%d bytes of the value are kept, want %d; cut %q, want %q", len(got.Value), test.kept, of["cut"], test.cut)
			}
			if keyCut := strings.Contains(test.cut, "key"); (string(got.Key) != string(test.key)) != keyCut {
				t.Errorf("the key has %d bytes", len(got.Key))
			}
			sum := sha256.Sum256(test.value)
			if test.forms > 0 && (of["length"] != strconv.Itoa(len(test.value)) || of["sha256"] != hex.EncodeToString(sum[:])) {
				t.Errorf("length %s, sha256 %s", of["length"], of["sha256"])
			}
			if of["offset"] != "41" || of["reason"] != "undecodable" || of["detail"] != "why" {
				t.Errorf("headers %v", of)
			}
		})
	}
}

// A letter that is refused in any form is given up, whatever that is for; its
// neighbours are stored.
func TestLetterIsGivenUp(t *testing.T) {
	for _, test := range []struct {
		with   *kerr.Error
		reason event.Reason
	}{
		{kerr.MessageTooLarge, event.TooLarge},
		{kerr.InvalidRecord, event.Rejected},
		{kerr.TopicAuthorizationFailed, event.Unauthorized},
		{kerr.ClusterAuthorizationFailed, event.Unauthorized},
		{kerr.UnknownTopicOrPartition, event.Unreachable},
	} {
		t.Run(test.with.Message, func(t *testing.T) {
			t.Parallel()
			k := cluster(t)
			logged, lines := observer.New(zap.ErrorLevel)
			topic, err := Open(t.Context(), name, nil, connect(k), zap.New(logged))
			if err != nil {
				t.Fatal(err)
			}
			defer topic.Close(context.Background())
			topic.outage.patience = 1
			before, stored := newLetter(nil, []byte("v"), event.NoIndex)
			topic.Put(before, event.Undecodable, "", nil)
			eventually.Holds(t, "one before is stored", func() bool { return stored.Load() == 1 })

			refused := refuse(k, test.with)
			ev, settled := newLetter(nil, []byte("v"), 7)
			topic.Put(ev, event.Undecodable, "", nil)
			eventually.Holds(t, "it is given up", func() bool { return settled.Load() == 1 })
			if s := topic.Status(); s.Waiting != 0 || s.GivenUp[test.reason] != 1 || !strings.HasPrefix(s.LastError, test.with.Message) {
				t.Errorf("status %+v", s)
			}
			line := lines.FilterMessageSnippet("given up").All()
			if len(line) != 1 {
				t.Fatalf("%d lines say it", len(line))
			}
			if of := line[0].ContextMap(); of["topic"] != "twins" || of["partition"] != int32(3) || of["offset"] != int64(41) || of["index"] != int32(7) || of["needed"] == "" {
				t.Errorf("it is logged as %v", of)
			}

			refused.over.Store(true)
			after, storedAfter := newLetter(nil, []byte("w"), event.NoIndex)
			topic.Put(after, event.Undecodable, "", nil)
			eventually.Holds(t, "one behind is stored", func() bool { return storedAfter.Load() == 1 })
			if got := read(t, k, 2); string(got[1].Value) != "w" {
				t.Errorf("stored is %s", got[1].Value)
			}
		})
	}
}

// Only what is in the table is for good.
func TestRefusals(t *testing.T) {
	for _, err := range []error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.BrokerNotAvailable,
		kerr.KafkaStorageError, kerr.ThrottlingQuotaExceeded, kerr.SaslAuthenticationFailed, kerr.UnknownServerError, kerr.OutOfOrderSequenceNumber,
		context.DeadlineExceeded, kgo.ErrRecordTimeout, kgo.ErrRecordRetries, kgo.ErrClientClosed, errors.New("dial tcp: connection refused"), nil,
	} {
		if got := refusalOf(err); got != (refusal{}) {
			t.Errorf("%v is %+v", err, got)
		}
	}
	for err, want := range refusals {
		if got := refusalOf(fmt.Errorf("produce: %w", err)); got != want || got.fault == ofBrokers || got.needed == "" {
			t.Errorf("%v is %+v", err, got)
		}
		reason := false
		for _, r := range GivenUpReasons {
			reason = reason || r == want.reason
		}
		if !reason {
			t.Errorf("%v: no metric has the reason %s", err, want.reason)
		}
	}
}

func TestOutage(t *testing.T) {
	start := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	type step struct {
		minute float64
		stored bool
		want   bool // that a letter that is refused then is given up
	}
	for title, steps := range map[string][]step{
		"at once":                        {{minute: 0}},
		"within patience":                {{minute: 0}, {minute: 8}, {minute: 15}},
		"past it":                        {{minute: 0}, {minute: 8}, {minute: 15.1, want: true}, {minute: 15.2, want: true}, {minute: 20, want: true}},
		"one is stored":                  {{minute: 0}, {minute: 8}, {minute: 10, stored: true}, {minute: 16}, {minute: 25}, {minute: 31.1, want: true}},
		"a pause, and another one":       {{minute: 0}, {minute: 8}, {minute: 24}, {minute: 39}, {minute: 39.1, want: true}},
		"given up, a pause, and another": {{minute: 0}, {minute: 10}, {minute: 16, want: true}, {minute: 40}},
	} {
		o := outage{patience: patience}
		for _, s := range steps {
			if s.stored {
				o.over()
			} else if got := o.outlasts(start.Add(time.Duration(s.minute * float64(time.Minute)))); got != s.want {
				t.Errorf("%s: after %v minutes given up: %t, want %t", title, s.minute, got, s.want)
			}
		}
	}
}

// A letter that is too large for a batch holds nobody up, while brokers don't
// take it.
func TestLargeLetterHoldsUpNobody(t *testing.T) {
	t.Parallel()
	k := cluster(t)
	topic := open(t, k)
	refused := refuse(k, kerr.NotEnoughReplicas)
	refused.over1MB = true
	large, largeSettled := newLetter(nil, noise(1<<21), event.NoIndex)
	topic.Put(large, event.Undecodable, "", nil)
	eventually.Holds(t, "the large one is refused", func() bool { return refused.count.Load() > 0 })
	var settled []*atomic.Int32
	for range 100 {
		ev, one := newLetter(nil, []byte("v"), event.NoIndex)
		topic.Put(ev, event.Undecodable, "", nil)
		settled = append(settled, one)
	}
	eventually.Holds(t, "all small ones are stored", func() bool {
		for _, one := range settled {
			if one.Load() == 0 {
				return false
			}
		}
		return true
	})
	if largeSettled.Load() != 0 || topic.Status().Waiting != 1 {
		t.Errorf("%d wait", topic.Status().Waiting)
	}
	refused.over.Store(true) // or Close would try it for long
}

// What is copied to be sent is bounded, however much the topic takes and waits.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	for title, value := range map[string][]byte{
		"in batches":            noise(maxBatch - 10_000),
		"larger than a batch":   noise(maxBatch + 1000),
		"several times a batch": noise(5 << 20),
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k := cluster(t)
			if err := k.CreateTopic(name, 16, map[string]string{"max.message.bytes": "100000000"}); err != nil {
				t.Fatal(err)
			}
			topic := open(t, k)
			most, put := 0, make(chan struct{})
			k.ControlKey(kmsg.Metadata.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
				k.KeepControl()
				k.SleepControl(func() { <-put }) // nothing is sent before everything waits
				return nil, nil, false
			})
			k.ControlKey(kmsg.Produce.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
				k.KeepControl()
				sent := 0
				for _, p := range request.(*kmsg.ProduceRequest).Topics[0].Partitions {
					sent += len(p.Records)
				}
				most = max(most, sent)
				return nil, nil, false
			})
			var settled []*atomic.Int32
			for i := range 8 {
				ev, one := newLetter(nil, value, event.NoIndex)
				ev.Chunk.Partition = int32(i)
				topic.Put(ev, event.TooLarge, "", nil)
				settled = append(settled, one)
			}
			close(put)
			eventually.Holds(t, "all are stored", func() bool {
				return !slices.ContainsFunc(settled, func(one *atomic.Int32) bool { return one.Load() == 0 })
			})
			if bound := max(maxWrite, len(value)+2000); most > bound {
				t.Errorf("%d bytes in one request, want at most %d", most, bound)
			}
			if s := topic.Status(); s.Cut != 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// A topic that was deleted and made anew is written to again.
func TestTopicMadeAnew(t *testing.T) {
	t.Parallel()
	k := cluster(t)
	topic := open(t, k)
	put := func(value []byte) {
		t.Helper()
		ev, settled := newLetter(nil, value, event.NoIndex)
		topic.Put(ev, event.Undecodable, "", nil)
		eventually.Holds(t, "it is stored", func() bool { return settled.Load() == 1 })
	}
	large := noise(2 << 20)
	create := func() {
		t.Helper()
		if err := k.CreateTopic(name, 1, map[string]string{"max.message.bytes": "10000000"}); err != nil {
			t.Fatal(err)
		}
	}
	put([]byte("v"))
	if err := k.DeleteTopic(name); err != nil {
		t.Fatal(err)
	}
	create()
	put([]byte("w"))
	put(large)
	if got := read(t, k, 2); string(got[0].Value) != "w" || len(got[1].Value) != len(large) {
		t.Errorf("stored are %d and %d bytes", len(got[0].Value), len(got[1].Value))
	}
	if s := topic.Status(); s.GivenUp != [event.NumReasons]uint64{} {
		t.Errorf("given up: %v", s.GivenUp)
	}
}

// Who writes the ingest topic decides how many letters are lost, and not how many
// lines of the log: ten of a kind each second.
func TestLossesAreLoggedInPart(t *testing.T) {
	logged, lines := observer.New(zap.InfoLevel)
	log := logLosses(zap.New(logged))
	for range 1000 {
		log.Error("cut")
		log.Error("given up")
	}
	if n := lines.Len(); n < 20 || n > 40 { // the second may end amid the loop
		t.Errorf("%d lines, want ten of each kind", n)
	}
}
