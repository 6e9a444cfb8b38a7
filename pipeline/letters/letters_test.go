package letters

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/goleak"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	topic = "letters"
	hub   = "11111111-1111-4111-8111-111111111111"
	grid  = "22222222-2222-4222-8222-222222222222"
)

// env is an embedded broker with a dead-letter topic.
type env struct {
	*testing.T
	broker *kfake.Cluster
	client *kgo.Client
	reader *Reader
	now    time.Time
	n      int
}

func newEnv(t *testing.T, partitions int32, opts ...kfake.Opt) *env {
	t.Helper()
	broker, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	connect := []kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...)}
	client, err := kgo.NewClient(append(connect, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &env{T: t, broker: broker, client: client, reader: &Reader{Topic: topic, BatchBytes: 4 << 20, Connect: connect}, now: time.Now().Truncate(time.Second)}
}

// letter returns a letter that was stored ago; each has a source offset of its own.
func (e *env) letter(partition int32, ago time.Duration, reason, endpoint, value string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: topic, Partition: partition, Timestamp: e.now.Add(-ago), Key: []byte("k"), Value: []byte(value)}
	all := []string{"reason", reason, "detail", "why", "topic", "twins", "partition", "7", "offset", strconv.Itoa(e.n), "endpoint", endpoint}
	e.n++
	all = append(append(all, headers...), "time", "2026-05-01T08:00:00Z", "own", "header")
	for i := 0; i < len(all); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: all[i], Value: []byte(all[i+1])})
	}
	return r
}

// store stores records, each in a batch of its own.
func (e *env) store(records ...*kgo.Record) {
	e.Helper()
	for _, r := range records {
		if err := e.client.ProduceSync(e.Context(), r).FirstErr(); err != nil {
			e.Fatal(err)
		}
	}
}

func (e *env) list(s Selection, most int, b Bounds) List {
	e.Helper()
	list, err := e.reader.List(e.Context(), s, most, b)
	if err != nil {
		e.Fatal(err)
	}
	return list
}

// values are the source offsets of a list.
func values(l List) string {
	var of []string
	for _, one := range l.Letters {
		of = append(of, strconv.FormatInt(one.Source.Offset, 10))
	}
	return strings.Join(of, " ")
}

// A list has the newest letters of all partitions, and doesn't read the others.
func TestListIsTheNewest(t *testing.T) {
	e := newEnv(t, 3)
	const minute = time.Minute
	for i := range 300 { // partition 0 has old ones only
		e.store(e.letter(0, time.Duration(3000-i)*minute, "backoff", hub, "v"))
	}
	for i := range 20 { // 1 and 2 alternate
		e.store(e.letter(1+int32(i%2), time.Duration(40-i)*minute, "backoff", hub, "v"))
	}
	list := e.list(Selection{}, 5, Bounds{})
	if got := values(list); got != "319 318 317 316 315" || !list.More {
		t.Errorf("the newest are %s, more %t", got, list.More)
	}
	if list.Read > 60 {
		t.Errorf("%d records were read for 5 of 320", list.Read)
	}
	if all := e.list(Selection{}, 1000, Bounds{}); len(all.Letters) != 320 || all.More || all.Read != 320 || values(List{Letters: all.Letters[318:]}) != "1 0" {
		t.Errorf("all are %d, more %t, read %d", len(all.Letters), all.More, all.Read)
	}
}

func TestSelections(t *testing.T) {
	e := newEnv(t, 2)
	const hour = time.Hour
	e.store(
		e.letter(0, 5*hour, "backoff", hub, "v"),    // 0
		e.letter(0, 4*hour, "rejected", hub, "v"),   // 1
		e.letter(1, 3*hour, "rejected", grid, "v"),  // 2
		e.letter(0, 2*hour, "too_large", grid, "v"), // 3
		e.letter(1, 1*hour, "undecodable", "", "{"), // 4
	)
	at := func(ago time.Duration) time.Time { return e.now.Add(-ago) }
	for want, s := range map[string]Selection{
		"4 3 2 1 0": {},
		"1 0":       {Endpoint: hub},
		"2 1":       {Reasons: []string{"rejected"}},
		" 3 2 1":    {Reasons: []string{"rejected", "too_large"}},
		"2":         {Endpoint: grid, Reasons: []string{"rejected"}},
		"4 3":       {Since: at(2 * hour)},
		"1 0 ":      {Until: at(3 * hour)}, // excluded
		"3 2 1":     {Since: at(4 * hour), Until: at(hour)},
		"":          {Since: at(time.Minute)},
	} {
		want = strings.TrimSpace(want)
		if got := values(e.list(s, 10, Bounds{})); got != want {
			t.Errorf("%+v: %s, want %s", s, got, want)
		}
		count, err := e.reader.Count(t.Context(), s, Bounds{})
		if wanted := len(strings.Fields(want)); err != nil || count.Letters != int64(wanted) {
			t.Errorf("%+v: %d are counted, want %d: %v", s, count.Letters, wanted, err)
		}
	}
}

func TestCount(t *testing.T) {
	e := newEnv(t, 2)
	e.store(
		e.letter(0, 3*time.Hour, "backoff", hub, "12345", "endpointName", "old", "endpointTarget", "EventHub h/p"),
		e.letter(0, 2*time.Hour, "backoff", hub, "123", "endpointName", "new", "endpointTarget", "EventHub h/p"),
		e.letter(1, time.Hour, "rejected", grid, "1"),
		e.letter(1, time.Hour, strings.Repeat("x", 100), grid, "1"),
		&kgo.Record{Topic: topic, Value: []byte("foreign")},
	)
	count, err := e.reader.Count(t.Context(), Selection{}, Bounds{})
	if err != nil {
		t.Fatal(err)
	}
	names := NamesOf([]endpoints.Endpoint{storetest.Grid("", func(e *endpoints.Endpoint) { e.ID, e.Name = grid, "a grid" })})
	var got []string
	for _, g := range count.Groups {
		names.Complete(&g.Endpoint)
		got = append(got, fmt.Sprint(g.Letters, " ", g.Reason, " ", g.Name, " ", g.Bytes, " ", g.Newest.Sub(g.Oldest)))
	}
	if want := "2 backoff new 8 1h0m0s, 1 rejected a grid 1 0s"; strings.Join(got, ", ") != want {
		t.Errorf("groups are %s, want %s", strings.Join(got, ", "), want)
	}
	if count.Letters != 4 || count.Other != 1 || count.Foreign != 1 || count.Read != 5 || count.Cut != "" {
		t.Errorf("%+v", count)
	}
}

// An answer with bounds says when they were reached, and not when they were just met.
func TestBounds(t *testing.T) {
	e := newEnv(t, 2)
	for i := range 40 {
		e.store(e.letter(int32(i%2), time.Duration(100-i)*time.Minute, "backoff", hub, "v"))
	}
	none := Selection{Reasons: []string{"rejected"}}
	for records, cut := range map[int64]bool{10: true, 39: true, 40: false, 41: false} {
		list := e.list(none, 5, Bounds{Records: records})
		count, err := e.reader.Count(t.Context(), Selection{}, Bounds{Records: records})
		if err != nil {
			t.Fatal(err)
		}
		if (list.Cut != "") != cut || list.More != cut || list.Read > records {
			t.Errorf("a list of %d: read %d, cut %q, more %t", records, list.Read, list.Cut, list.More)
		}
		if (count.Cut != "") != cut || count.Read > records || !cut && count.Letters != 40 {
			t.Errorf("a count of %d: read %d, cut %q, %d letters", records, count.Read, count.Cut, count.Letters)
		}
	}
}

// Brokers that stop answering end an answer in time: with what was read, or with an
// error where that is nothing.
func TestSlowBrokers(t *testing.T) {
	hanging := func() *env {
		e := newEnv(t, 1)
		e.store(e.letter(0, time.Minute, "backoff", hub, "v"))
		e.broker.ControlKey(kmsg.Fetch.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			<-t.Context().Done() // the broker answers nothing else meanwhile
			return nil, errors.New("too late"), true
		})
		return e
	}
	b := Bounds{Time: 500 * time.Millisecond}
	list := hanging().list(Selection{}, 5, b)
	if !strings.Contains(list.Cut, "in 500ms") || !list.More {
		t.Errorf("cut is %q", list.Cut)
	}
	e := hanging()
	for range 2 { // the second can't even ask where the topic ends
		if _, err := e.reader.Show(t.Context(), 0, 0, 100, b); err == nil || !strings.Contains(err.Error(), "in 500ms") && !strings.Contains(err.Error(), "deadline exceeded") {
			t.Errorf("error %v", err)
		}
	}
}

// A letter is shown as it is, and as much of it as is asked for.
func TestShow(t *testing.T) {
	e := newEnv(t, 1)
	e.store(
		e.letter(0, time.Minute, "backoff", hub, `{"a":"ä"}`, "index", "3"),
		e.letter(0, time.Minute, "backoff", hub, "\xff\xfe"),
		&kgo.Record{Topic: topic, Value: []byte("foreign")},
	)
	show := func(offset int64, most int) *Whole {
		t.Helper()
		l, err := e.reader.Show(t.Context(), 0, offset, most, Bounds{})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := show(0, 1000)
	if *l.Value != `{"a":"ä"}` || l.ValueCut || l.Key != "k" || fmt.Sprint(l.Headers) != "[{own header}]" || *l.Source.Index != 3 || l.Bytes != 10 {
		t.Errorf("%+v", l)
	}
	if l = show(0, 7); *l.Value != `{"a":"` || !l.ValueCut { // 7 is half of ä
		t.Errorf("cut: %q", *l.Value)
	}
	if l = show(0, 10); l.ValueCut {
		t.Error("what has the length that may be is cut")
	}
	if l = show(1, 1000); l.Value != nil || l.ValueBase64 != "//4=" || !bytes.Equal(l.Raw, []byte("\xff\xfe")) {
		t.Errorf("no UTF-8: %+v", l)
	}
	for title, at := range map[string]struct {
		partition int32
		offset    int64
	}{"no letter": {0, 2}, "behind the end": {0, 3}, "no partition": {1, 0}} {
		if _, err := e.reader.Show(t.Context(), at.partition, at.offset, 100, Bounds{}); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", title, err)
		}
	}
}

func TestFind(t *testing.T) {
	e := newEnv(t, 2)
	e.store(e.letter(0, time.Minute, "backoff", hub, "v", "index", "1"), e.letter(1, time.Minute, "backoff", grid, "v", "offset", "0"))
	one := int32(1)
	for want, of := range map[int]*int32{2: nil, 1: &one} {
		found, err := e.reader.Find(t.Context(), "twins", 7, 0, of)
		if err != nil || len(found) != want {
			t.Errorf("%d are found, want %d: %v", len(found), want, err)
		}
	}
	if found, err := e.reader.Find(t.Context(), "twins", 7, 9, nil); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}

// A batch that takes more memory than it may is stepped over, and counted; a fetch of
// many that unpack to much is read in parts.
func TestBatchesThatUnpackToMuch(t *testing.T) {
	e := newEnv(t, 1)
	large := func(size int) *kgo.Record { return e.letter(0, time.Minute, "backoff", hub, strings.Repeat("x", size)) }
	e.store(large(100), large(8<<20), large(100))
	for range 20 {
		e.store(large(3 << 20)) // 300 bytes each, packed
	}
	e.store(large(8 << 20))
	count, err := e.reader.Count(t.Context(), Selection{}, Bounds{})
	if err != nil || count.Letters != 22 || count.Unreadable != 2 {
		t.Errorf("%d letters, %d unreadable: %v", count.Letters, count.Unreadable, err)
	}
	list := e.list(Selection{}, 3, Bounds{})
	if got := values(list); got != "22 21 20" {
		t.Errorf("the newest are %s", got)
	}
	if _, err := e.reader.Show(t.Context(), 0, 1, 100, Bounds{}); !errors.Is(err, ErrNone) {
		t.Errorf("it is shown: %v", err)
	}
}

// One batch of very many records that unpacks to too much is fetched once, though the
// newest letters are read backwards and in steps, and each of its offsets counts once.
func TestLargeBatchIsReadOnce(t *testing.T) {
	e := newEnv(t, 1)
	small := func() *kgo.Record { return e.letter(0, time.Minute, "backoff", hub, "v") }
	e.store(small(), small())
	together, err := kgo.NewClient(append(e.reader.Connect, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(64<<20),
		kgo.ProducerLinger(time.Second), kgo.MaxBufferedRecords(10_000))...)
	if err != nil {
		t.Fatal(err)
	}
	defer together.Close()
	const n = 5_000
	batch := make([]*kgo.Record, n)
	for i := range batch {
		batch[i] = e.letter(0, time.Minute, "backoff", hub, strings.Repeat("x", 1000))
	}
	if err := together.ProduceSync(t.Context(), batch...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	e.store(small())
	fetches := 0
	e.broker.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.broker.KeepControl()
		fetches++
		return nil, nil, false
	})
	list := e.list(Selection{}, 10, Bounds{})
	if len(list.Letters) != 3 || list.Unreadable != n || fetches > 10 {
		t.Errorf("%d letters, %d offsets unreadable, %d fetches", len(list.Letters), list.Unreadable, fetches)
	}
}

// Whatever a letter says of itself, what is shown of it has a bound and is fit for a
// terminal.
func TestHostileLetter(t *testing.T) {
	e := newEnv(t, 1)
	evil := strings.Repeat("\x1b[31m\u202e", 20_000)
	e.store(e.letter(0, time.Minute, evil, evil, "v", "detail", evil, "endpointName", evil, "endpointTarget", evil, "elements", evil, "cut", evil))
	list := e.list(Selection{}, 10, Bounds{})
	text := fmt.Sprintf("%+v", list)
	if len(list.Letters) != 1 || len(text) > 20_000 || strings.ContainsAny(text, "\x1b\u202e") {
		t.Errorf("%d bytes: %.200q", len(text), text)
	}
	l, err := e.reader.Show(t.Context(), 0, 0, 10, Bounds{})
	if err != nil || len(fmt.Sprintf("%+v", l)) > 20_000 {
		t.Errorf("%v", err)
	}
}

// Brokers of long ago know topics by their names alone.
func TestOldBrokers(t *testing.T) {
	e := newEnv(t, 1, kfake.MaxVersions(kversion.V2_0_0()))
	e.client.Close()
	connect := []kgo.Opt{kgo.SeedBrokers(e.broker.ListenAddrs()...)}
	client, err := kgo.NewClient(append(connect, kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	e.client = client
	e.store(e.letter(0, time.Minute, "backoff", hub, "v"))
	if list := e.list(Selection{}, 10, Bounds{}); len(list.Letters) != 1 {
		t.Errorf("%+v", list)
	}
}

func TestNoTopic(t *testing.T) {
	e := newEnv(t, 1)
	e.reader.Topic = "nope"
	if _, err := e.reader.List(t.Context(), Selection{}, 10, Bounds{}); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("error %v", err)
	}
	e.reader.Connect = []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}
	if _, err := e.reader.Count(t.Context(), Selection{}, Bounds{Time: time.Second}); err == nil || !strings.Contains(err.Error(), "no Kafka broker answers") {
		t.Errorf("error %v", err)
	}
}
