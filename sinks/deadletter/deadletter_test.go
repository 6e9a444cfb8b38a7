package deadletter

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"twinegress/internal/blackhole"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "dead"

func cluster(t *testing.T) *kfake.Cluster {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func connect(k *kfake.Cluster) []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...)} }

func newClient(t *testing.T, k *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, connect(k)...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// open opens the topic; a test that is not about Close leaves it to the end.
func open(t *testing.T, k *kfake.Cluster, ingest ...string) *Topic {
	t.Helper()
	topic, err := Open(t.Context(), name, ingest, connect(k), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-topic.closing:
		default:
			_ = topic.Close(context.Background())
		}
	})
	return topic
}

// recipient returns an endpoint with that id, or nil for none.
func recipient(id string) *sinks.Recipient {
	if id == "" {
		return nil
	}
	return &sinks.Recipient{ID: id, Name: "a hub", Target: "EventHub ns.servicebus.windows.net/changes"}
}

// newLetter returns an event, and how often its chunk was settled.
func newLetter(key, value []byte, index int32, headers ...event.Header) (*event.Event, *atomic.Int32) {
	settled := new(atomic.Int32)
	c := event.NewChunk("twins", 3, 1, 0, func(*event.Chunk) { settled.Add(1) })
	c.Add(41, 0, 0, key, value)
	for _, h := range headers {
		c.AddHeader(h.Key, h.Value)
	}
	r := &c.Records[0]
	return &event.Event{Chunk: c, Record: r, Index: index, Body: r.Value}, settled
}

// read returns the first n records of the topic.
func read(t *testing.T, k *kfake.Cluster, n int) (records []*kgo.Record) {
	t.Helper()
	client := newClient(t, k, kgo.ConsumeTopics(name), kgo.FetchMaxPartitionBytes(16<<20))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func maxBytes(t *testing.T, k *kfake.Cluster, topic string) string {
	t.Helper()
	n, ok := maxMessageBytes(t.Context(), kadm.NewClient(newClient(t, k)), topic)
	if !ok {
		t.Fatal("the topic has no max.message.bytes")
	}
	return strconv.Itoa(int(n))
}

func TestTopicIsCreatedWithRoom(t *testing.T) {
	tests := map[string]struct {
		ingest   string // max.message.bytes of the ingest topic; "" is no topic
		existing string // of the dead-letter topic
		want     string
	}{
		"no ingest topic yet":             {want: strconv.Itoa(defaultMaxBytes + headroom)},
		"the ingest topic takes more":     {ingest: "5000000", want: strconv.Itoa(5000000 + headroom)},
		"the ingest topic takes less":     {ingest: "1000", want: strconv.Itoa(defaultMaxBytes + headroom)},
		"the ingest topic takes anything": {ingest: "2147483647", want: "2147483647"},
		"it is there already":             {ingest: "5000000", existing: "70000", want: "70000"},
	}
	for title, test := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k := cluster(t)
			create := func(topic, size string) {
				if size == "" {
					return
				}
				if err := k.CreateTopic(topic, 1, map[string]string{"max.message.bytes": size}); err != nil {
					t.Fatal(err)
				}
			}
			create("twins", test.ingest)
			create(name, test.existing)
			open(t, k, "twins")
			if got := maxBytes(t, k, name); got != test.want {
				t.Errorf("max.message.bytes is %s, want %s", got, test.want)
			}
		})
	}
}

// The error is about the connection to the brokers, not about the topic.
func TestNoBrokerAnswers(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), name, nil, []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, zap.NewNop())
	if err == nil || !strings.Contains(err.Error(), "ingest.brokers") || strings.Contains(err.Error(), name) {
		t.Errorf("without a broker: %v", err)
	}
}

func TestLetterIntact(t *testing.T) {
	t.Parallel()
	own := event.Header{Key: "own", Value: []byte{0xff, 0}}
	long := strings.Repeat("x", untrusted.MaxLength+500)
	tests := map[string]struct {
		key, value []byte
		index      int32
		endpoint   string
		detail     string
		headers    []event.Header
		want       []string
	}{
		"a whole record":           {[]byte("k"), []byte(" {not json\xff "), event.NoIndex, "", "why", nil, []string{"reason=rejected", "detail=why", "topic=twins", "partition=3", "offset=41", "time"}},
		"a tombstone":              {nil, nil, event.NoIndex, "", "why", nil, []string{"reason=rejected", "detail=why", "topic=twins", "partition=3", "offset=41", "time"}},
		"an empty value":           {[]byte{}, []byte{}, event.NoIndex, "", "why", nil, []string{"reason=rejected", "detail=why", "topic=twins", "partition=3", "offset=41", "time"}},
		"of an array, an endpoint": {nil, []byte("{}"), 7, "id-1", "why", []event.Header{own, own}, []string{"reason=rejected", "detail=why", "topic=twins", "partition=3", "offset=41", "index=7", "endpoint=id-1", "endpointName=a hub", "endpointTarget=EventHub ns.servicebus.windows.net/changes", "time", "own=\xff\x00", "own=\xff\x00"}},
		"a late element's":         {nil, []byte("{}"), fewElements, "id-1", "why", nil, []string{"reason=rejected", "detail=why", "topic=twins", "partition=3", "offset=41", "index=8", "endpoint=id-1", "time"}},
		"a long detail":            {nil, []byte("{}"), event.NoIndex, "", long, nil, []string{"reason=rejected", "detail=" + long[:untrusted.MaxLength] + "…", "topic=twins", "partition=3", "offset=41", "time"}},
	}
	for title, test := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k := cluster(t)
			topic := open(t, k)
			ev, settled := newLetter(test.key, test.value, test.index, test.headers...)
			topic.Put(ev, event.Rejected, test.detail, recipient(test.endpoint))
			eventually.Holds(t, "stored", func() bool { return settled.Load() == 1 && topic.Status().Waiting == 0 })
			got := read(t, k, 1)[0]
			if fmt.Sprintf("%#v %#v", got.Key, got.Value) != fmt.Sprintf("%#v %#v", test.key, test.value) {
				t.Errorf("key and value are %#v, %#v", got.Key, got.Value)
			}
			var headers []string
			for _, h := range got.Headers {
				if h.Key == "time" {
					if at, err := time.Parse(time.RFC3339Nano, string(h.Value)); err != nil || time.Since(at) > time.Minute {
						t.Errorf("time is %s", h.Value)
					}
					headers = append(headers, h.Key)
					continue
				}
				headers = append(headers, h.Key+"="+string(h.Value))
			}
			if !slices.Equal(headers, test.want) {
				t.Errorf("headers are %q, want %q", headers, test.want)
			}
		})
	}
}

// refusing makes a broker refuse records, until it is over.
type refusing struct {
	over    atomic.Bool
	left    atomic.Int32 // refusals until it is over, if it was set
	over1MB bool         // only what is larger
	count   atomic.Int32
}

func refuse(k *kfake.Cluster, with *kerr.Error) *refusing {
	refused := new(refusing)
	k.ControlKey(kmsg.Produce.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		r := request.(*kmsg.ProduceRequest)
		if refused.over.Load() || refused.over1MB && len(r.Topics[0].Partitions[0].Records) < 1<<20 {
			return nil, nil, false
		}
		refused.count.Add(1)
		if refused.left.Add(-1) == 0 {
			refused.over.Store(true)
		}
		response := r.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range r.Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, with.Code
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, true
	})
	return refused
}

// While the topic refuses a letter for now, its chunk is not settled; then the
// letter is stored and the chunk settled, once. Brokers are waited for however
// long that takes.
func TestRefusedLetterIsTriedAgain(t *testing.T) {
	for _, with := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.UnknownServerError} {
		t.Run(with.Message, func(t *testing.T) {
			t.Parallel()
			k := cluster(t)
			refused := refuse(k, with)
			topic := open(t, k)
			if with == kerr.UnknownServerError {
				topic.outage.patience = 1
			}
			ev, settled := newLetter(nil, []byte("v"), event.NoIndex)
			topic.Put(ev, event.Undecodable, "why", nil)
			eventually.Holds(t, "it is refused three times", func() bool { return refused.count.Load() >= 3 })
			if s := topic.Status(); settled.Load() != 0 || s.Waiting != 1 || !strings.HasPrefix(s.LastError, with.Message) {
				t.Errorf("settled %d times, %+v, while it is refused", settled.Load(), s)
			}
			refused.over.Store(true)
			eventually.Holds(t, "it is stored", func() bool { return settled.Load() > 0 })
			if err := topic.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if s := topic.Status(); settled.Load() != 1 || s.Waiting != 0 || s.Cut != 0 || s.GivenUp != [event.NumReasons]uint64{} {
				t.Errorf("settled %d times, %+v", settled.Load(), s)
			}
			if got := read(t, k, 1); len(got) != 1 || string(got[0].Value) != "v" {
				t.Errorf("stored are %d letters", len(got))
			}
		})
	}
}

// Close returns within its time how many letters are not stored, and settles
// none of them. A broker that never answers a request must not keep the process
// from stopping: not the writer, which waits for room in the client, nor who
// waits for a letter that is in no batch, nor the client itself.
func TestCloseWithLettersWaiting(t *testing.T) {
	tests := map[string]struct {
		letters int
		size    int
		refused *kerr.Error
		silent  bool
	}{
		"refused":   {letters: 3, refused: kerr.TopicAuthorizationFailed},
		"no leader": {letters: 3, refused: kerr.NotLeaderForPartition},
		"no answer": {letters: 3, silent: true},
		"no answer, more letters than a client has": {letters: maxBuffered + 100, silent: true},
		"no answer to a letter in no batch":         {letters: 3, size: 2 << 20, silent: true},
	}
	for title, test := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k := cluster(t)
			var network blackhole.Network
			topic, err := Open(t.Context(), name, nil, append(connect(k), kgo.Dialer(network.Dial)), zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			put := func(n int) (settled []*atomic.Int32) {
				for range n {
					ev, one := newLetter(nil, make([]byte, max(1, test.size)), event.NoIndex)
					settled = append(settled, one)
					topic.Put(ev, event.Undecodable, "", nil)
				}
				return settled
			}
			switch {
			case test.refused != nil:
				refuse(k, test.refused)
			case test.silent:
				// With a first letter stored, the client knows the topic: what is
				// in flight then is the letters, and not a question about it.
				first := put(1)
				eventually.Holds(t, "the first letter is stored", func() bool { return first[0].Load() == 1 })
				network.Begin()
			}
			settled := put(test.letters)
			if test.silent {
				eventually.Holds(t, "a reply is lost", func() bool { return network.Lost() > 0 })
			}

			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begun := time.Now()
			err = topic.Close(ctx)
			limit := time.Second
			if test.silent {
				limit = 5 * time.Second // less than the client waits by itself
			}
			if took := time.Since(begun); took > limit {
				t.Errorf("Close took %v", took)
			}
			if err == nil || !strings.Contains(err.Error(), strconv.Itoa(test.letters)+" dead letters were not stored") {
				t.Errorf("Close says %v", err)
			}
			for _, one := range settled {
				if one.Load() != 0 {
					t.Error("a letter that was not stored is settled")
				}
			}
		})
	}
}

// Such a broker must not keep a process from stopping that has just started.
func TestOpenWhileTheBrokerIsSilent(t *testing.T) {
	k := cluster(t)
	var network blackhole.Network
	network.Begin()
	ctx, abort := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := Open(ctx, name, nil, append(connect(k), kgo.Dialer(network.Dial)), zap.NewNop())
		ended <- err
	}()
	eventually.Holds(t, "the first reply is lost", func() bool { return network.Lost() > 0 })
	abort()
	begun := time.Now()
	if err := <-ended; err == nil {
		t.Error("it opened")
	}
	if took := time.Since(begun); took > 5*time.Second { // the client's own time-out is 10 s
		t.Errorf("Open took %v", took)
	}
}
