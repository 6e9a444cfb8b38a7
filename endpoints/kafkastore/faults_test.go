package kafkastore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
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
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/internal/eventually"
)

// tapped is a connection that a test intercepts.
type tapped struct {
	net.Conn
	reading func() error                       // before each answer is read
	writing func(key kmsg.Key, request []byte) // before each request is written
}

func (c *tapped) Read(b []byte) (int, error) {
	if err := c.reading(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *tapped) Write(b []byte) (int, error) {
	if len(b) >= 6 { // the client writes a whole request at a time: size, key, …
		c.writing(kmsg.Key(binary.BigEndian.Uint16(b[4:])), b)
	}
	return c.Conn.Write(b)
}

func dialer(wrap func(net.Conn) net.Conn) kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, host)
		if err != nil {
			return nil, err
		}
		return wrap(c), nil
	})
}

// A copy that lags behind must read to the end before it decides.
func TestChangeReadsToTheEndFirst(t *testing.T) {
	c := anyCluster(t)
	a := c.start(t, c.keys)
	var blind atomic.Bool
	sighted := make(chan struct{})
	// The connections there are before it goes blind are the follower's.
	b := c.start(t, c.keys, dialer(func(inner net.Conn) net.Conn {
		if blind.Load() {
			return inner
		}
		return &tapped{Conn: inner, writing: func(kmsg.Key, []byte) {}, reading: func() error {
			if blind.Load() {
				<-sighted
			}
			return nil
		}}
	}))
	a.add(t, storetest.Hub("first"))
	eventually.Holds(t, "both follow", func() bool { return storetest.Names(b.Current()) == "first" })

	blind.Store(true)
	a.add(t, storetest.Device("device"))
	// The answer to a fetch that was on its way may have come through.
	a.add(t, storetest.Hub("last"))
	answer := make(chan error, 1)
	go func() {
		_, err := b.change(t, storetest.Add(storetest.Device("second device")))
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("a copy that couldn't see what there is answered %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if storetest.Names(b.Current()) == "first device last" {
		t.Fatal("it isn't blind: the test is worth nothing")
	}
	close(sighted)
	if err := <-answer; !isConflict(err) {
		t.Errorf("a second DeviceMessage endpoint: %v", err)
	}
}

// The reply to a commit is lost, and another copy fences this one before it can ask
// again: only the topic shows whether it was committed.
func TestLostAnswerToACommit(t *testing.T) {
	c := anyCluster(t)
	var lose, lost atomic.Bool
	a := c.start(t, c.keys, dialer(func(inner net.Conn) net.Conn {
		var committing atomic.Bool // one goroutine writes, another reads; the answer comes after the request
		return &tapped{Conn: inner, writing: func(key kmsg.Key, _ []byte) {
			committing.Store(key == kmsg.EndTxn)
		}, reading: func() error {
			if committing.Load() && lose.CompareAndSwap(true, false) {
				if _, err := io.ReadFull(inner, make([]byte, 4)); err != nil { // the answer is there
					return err
				}
				c.dieWriting(t, "killed")
				lost.Store(true)
				return io.EOF
			}
			return nil
		}}
	}), kgo.DisableClientMetrics()) // which would come between
	edits := 0
	lose.Store(true)
	set := a.edit(t, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		edits++
		return append(set, storetest.Hub("")), nil // again and again, if it is asked again
	})
	if !lost.Load() {
		t.Fatal("no answer was lost: the test is worth nothing")
	}
	if edits != 1 || len(set) != 1 || len(a.Current()) != 1 {
		t.Errorf("edited %d times; answered %v; in force %v", edits, set, a.Current())
	}
}

// A broker that accepts a write and never replies doesn't delay the end, although
// the record in flight outlives the attempt's context.
func TestSilentBroker(t *testing.T) {
	c := newCluster(t)
	var silent atomic.Bool
	swallowed := make(chan struct{}, 100)
	a := c.start(t, c.keys, dialer(func(inner net.Conn) net.Conn {
		var producing atomic.Bool
		return &tapped{Conn: inner, writing: func(key kmsg.Key, _ []byte) {
			producing.Store(silent.Load() && key == kmsg.Produce)
		}, reading: func() error {
			if !producing.Load() {
				return nil
			}
			swallowed <- struct{}{}
			_, err := io.Copy(io.Discard, inner) // until it is closed
			return errors.Join(err, io.EOF)
		}}
	}), kgo.DisableClientMetrics())
	silent.Store(true)
	waiting, abandon := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := a.Change(waiting, storetest.Add(storetest.Hub("first")))
		answer <- err
	}()
	<-swallowed
	abandon()
	if err := <-answer; !errors.Is(err, endpoints.ErrUnknown) {
		t.Errorf("a change that may be on its way: %v", err)
	}
	a.stop(t)
}

// A reported commit counts once the records are read back: franz-go has been seen to
// abort instead.
func TestCommitThatWasAnAbort(t *testing.T) {
	c := anyCluster(t)
	var turned atomic.Bool
	a := c.start(t, c.keys, dialer(func(inner net.Conn) net.Conn {
		return &tapped{Conn: inner, reading: func() error { return nil }, writing: func(key kmsg.Key, request []byte) {
			if key == kmsg.EndTxn && turned.CompareAndSwap(false, true) {
				request[len(request)-2] = 0 // commit: no; behind it are the tags, none
			}
		}}
	}))
	set := a.add(t, storetest.Hub("one"))
	if !turned.Load() || storetest.Names(set) != "one" || storetest.Names(a.Current()) != "one" {
		t.Errorf("answered %q; in force is %q", storetest.Names(set), storetest.Names(a.Current()))
	}
	if again := c.start(t, c.keys); storetest.Names(again.Current()) != "one" {
		t.Errorf("in the topic is %q", storetest.Names(again.Current()))
	}
}

// The outcome of a commit that failed is read from the topic: it was aborted.
func TestCommitThatDidNotHappen(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, c.keys)
	fault := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.UnknownServerError, Count: 1})
	edits := 0
	a.edit(t, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		edits++
		return append(set, storetest.Hub("")), nil
	})
	if fault.Hits() != 1 || edits != 2 || len(a.Current()) != 1 {
		t.Errorf("%d faults, %d edits; in force %v", fault.Hits(), edits, a.Current())
	}
}

// ErrUnknown is returned while the outcome isn't known.
func TestUnknownOutcome(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, c.keys)
	fault := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.UnknownServerError, Count: 1})
	late := c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.CoordinatorLoadInProgress, Count: -1,
		When: func(kmsg.Request) bool { return fault.Hits() > 0 },
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := a.Change(ctx, storetest.Add(storetest.Hub("one")))
	if !errors.Is(err, endpoints.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a commit of which nothing is known: %v", err)
	}
	late.Remove()
	// And nothing is held up by it.
	set := a.add(t, storetest.Hub("two"))
	if storetest.Names(set) != "two" {
		t.Errorf("in the end there is %s", storetest.Names(set))
	}
}

func TestBrokersDown(t *testing.T) {
	dir := t.TempDir()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SyncWrites())
	storetest.Must(t, err)
	addr := fake.ListenAddrs()[0]
	_, port, _ := net.SplitHostPort(addr)
	c := &cluster{topic: topic, connect: []kgo.Opt{kgo.SeedBrokers(addr)}, fake: fake, keys: storetest.Keyring(t, storetest.AgeKey(t))}
	a := c.start(t, c.keys)
	a.add(t, storetest.Hub("before"))
	fake.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = a.Change(ctx, storetest.Add(storetest.Hub("meanwhile")))
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, endpoints.ErrUnknown) || !strings.Contains(err.Error(), "nothing has changed") {
		t.Errorf("without brokers: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	if storetest.Names(a.Current()) != "before" {
		t.Errorf("in force without brokers: %s", storetest.Names(a.Current()))
	}
	loading, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	o, _ := c.options(c.keys)
	if _, err := New(o).Load(loading); err == nil || !strings.Contains(err.Error(), "endpoints topic "+topic) {
		t.Errorf("loading without brokers: %v", err)
	}

	number, err := strconv.Atoi(port)
	storetest.Must(t, err)
	fake, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(number), kfake.DataDir(dir), kfake.SyncWrites())
	storetest.Must(t, err)
	t.Cleanup(fake.Close)
	set := a.add(t, storetest.Hub("after"))
	if storetest.Names(set) != "before after" {
		t.Errorf("with brokers again: %s", storetest.Names(set))
	}
	if again := c.start(t, c.keys); storetest.Names(again.Current()) != "before after" {
		t.Errorf("after a restart of everything: %s", storetest.Names(again.Current()))
	}
}

func TestWithoutPermission(t *testing.T) {
	allow := func(resource kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: resource, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	c := newCluster(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "p"),
		kfake.User("PLAIN", "reader", "p", allow(kmsg.ACLResourceTypeTopic, topic, kmsg.ACLOperationRead)),
		kfake.User("PLAIN", "writer", "p", allow(kmsg.ACLResourceTypeTopic, topic, kmsg.ACLOperationRead),
			allow(kmsg.ACLResourceTypeTopic, topic, kmsg.ACLOperationWrite),
			allow(kmsg.ACLResourceTypeTransactionalId, topic+"-writer", kmsg.ACLOperationWrite)),
	)
	as := func(user string) kgo.Opt {
		return kgo.SASL(plain.Auth{User: user, Pass: "p"}.AsMechanism())
	}
	_, err := New(Options{Topic: topic, Keyring: c.keys, Connect: append(slices.Clone(c.connect), as("reader")), Logger: zap.NewNop()}).Load(t.Context())
	if err == nil || !strings.Contains(err.Error(), "create it with one partition and cleanup.policy=compact") {
		t.Errorf("without a topic and without the right to create it: %v", err)
	}
	admin := c.start(t, c.keys, as("admin"))
	admin.add(t, storetest.Hub("one"))

	reader := c.start(t, c.keys, as("reader"))
	if storetest.Names(reader.Current()) != "one" {
		t.Errorf("a reader sees %s", storetest.Names(reader.Current()))
	}
	if _, err := reader.change(t, storetest.Add(storetest.Hub("two"))); !errors.Is(err, endpoints.ErrReadOnly) || !strings.Contains(err.Error(), "TRANSACTIONAL_ID_AUTHORIZATION_FAILED") ||
		!strings.Contains(err.Error(), "(needed: Write and Describe on the transactional id "+topic+"-writer)") {
		t.Errorf("a reader writes: %v", err)
	}
	// What docs/operations.md asks for is enough.
	writer := c.start(t, c.keys, as("writer"))
	writer.add(t, storetest.Hub("two"))
}

func TestTopicThatWontDo(t *testing.T) {
	for name, tc := range map[string]struct {
		partitions int32
		policy     string
		want       string
	}{
		"two partitions":   {2, "compact", "it has 2 partitions and must have one"},
		"deletes with age": {1, "delete", "its cleanup.policy is delete and must be compact"},
		"both":             {1, "compact,delete", "its cleanup.policy is compact,delete and must be compact"},
	} {
		c := newCluster(t)
		storetest.Must(t, c.fake.CreateTopic(topic, tc.partitions, map[string]string{"cleanup.policy": tc.policy}))
		o, _ := c.options(c.keys)
		if _, err := New(o).Load(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := newCluster(t)
	c.start(t, c.keys)
	if got := *c.fake.TopicInfo(topic).Configs["cleanup.policy"]; got != "compact" {
		t.Errorf("created with cleanup.policy=%s", got)
	}
}

func TestCompaction(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, c.keys)
	for range 5 {
		a.add(t, storetest.Hub("gone"))
		a.edit(t, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			set[0].Path += "x"
			return append(set, storetest.Hub("kept")), nil
		})
		a.edit(t, remove("gone"))
		a.edit(t, remove("kept"))
	}
	set := a.add(t, storetest.Hub("stays"))
	before := len(c.all(t))
	c.fake.Compact()
	if after := len(c.all(t)); after >= before {
		t.Fatalf("%d records after compaction, %d before: the test is worth nothing", after, before)
	}
	b := c.start(t, c.keys)
	if storetest.Names(b.Current()) != storetest.Names(set) {
		t.Errorf("after compaction: %s, want %s", storetest.Names(b.Current()), storetest.Names(set))
	}
	set = b.add(t, storetest.Hub("new"))
	eventually.Holds(t, "the one from before follows", func() bool { return storetest.Names(a.Current()) == storetest.Names(set) })
}

// A record that can't be read delays nothing, and leaves its endpoint as it was.
func TestRecordsThatCantBeRead(t *testing.T) {
	c := anyCluster(t)
	a := c.start(t, c.keys)
	set := a.add(t, storetest.Hub("one"))
	id := set[0].ID

	c.put(t, &kgo.Record{Key: []byte(id), Value: []byte("SECRET {")}, &kgo.Record{Key: []byte{}, Value: []byte("[]")},
		&kgo.Record{Key: []byte("SharedAccessKey=not an id"), Value: nil})
	eventually.Holds(t, "it is told", func() bool { return a.logs.FilterMessageSnippet("can't be read").Len() == 2 })
	if storetest.Names(a.Current()) != "one" {
		t.Errorf("in force: %s", storetest.Names(a.Current()))
	}
	if got := a.logs.FilterMessageSnippet("can't be read").All()[0].ContextMap()["problem"]; !strings.Contains(got.(string), id) && !strings.Contains(got.(string), `""`) {
		t.Errorf("the log doesn't say which: %v", got)
	}
	// That was no endpoint for anyone.
	a.add(t, storetest.Hub("two"))

	// This is: another copy can read it, and may have it in force.
	other := &cluster{topic: topic, connect: c.connect, keys: storetest.Keyring(t, storetest.AgeKey(t))}
	theirs := other.record(t, storetest.Device("theirs"))
	c.put(t, theirs)
	_, err := a.change(t, storetest.Add(storetest.Device("ours")))
	if err == nil || !strings.Contains(err.Error(), string(theirs.Key)) || !strings.Contains(err.Error(), "secretsKeyFile") || isConflict(err) {
		t.Errorf("beside an endpoint that only others can read: %v", err)
	}
	c.put(t, &kgo.Record{Key: theirs.Key})
	a.add(t, storetest.Device("ours"))

	// With another key nothing can be read: that is no way to start.
	o, _ := c.options(other.keys)
	if _, err := New(o).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "a key that endpoints.secretsKeyFile does not hold") {
		t.Errorf("with the wrong key: %v", err)
	}
}

// A foreign writer can cause conflicts. Every copy resolves them in the same way.
func TestConflictsFromElsewhere(t *testing.T) {
	c := anyCluster(t)
	a := c.start(t, c.keys)
	a.add(t, storetest.Device("ours"))
	var records []*kgo.Record
	for _, one := range []endpoints.Endpoint{storetest.Device("theirs"), storetest.Hub("ours"), storetest.Hub("fine")} {
		r := c.record(t, one)
		r.Headers = []kgo.RecordHeader{{Key: createdHeader, Value: []byte(time.Now().Add(time.Hour).Format(time.RFC3339Nano))}}
		records = append(records, r)
	}
	c.put(t, records...)
	eventually.Holds(t, "what is fine is taken", func() bool { return storetest.Names(a.Current()) == "ours fine" })
	if again := c.start(t, c.keys); storetest.Names(again.Current()) != "ours fine" || again.logs.FilterMessageSnippet("not in force").Len() != 2 {
		t.Errorf("another copy makes of it: %s, and logs %v", storetest.Names(again.Current()), again.logs.All())
	}
}

// Rotation, as docs/operations.md describes it for several copies.
func TestRotation(t *testing.T) {
	c := anyCluster(t)
	older, newer := storetest.AgeKey(t), storetest.AgeKey(t)
	a := c.start(t, storetest.Keyring(t, older))
	set := a.edit(t, func([]endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		return []endpoints.Endpoint{storetest.Hub("one"), storetest.Hub("two")}, nil
	})
	a.stop(t)

	both := c.start(t, storetest.Keyring(t, older, newer)) // each can read what the others will write
	forward := c.start(t, storetest.Keyring(t, newer, older))
	eventually.Holds(t, "all is encrypted anew", func() bool { return forward.logs.FilterMessageSnippet("newest key").Len() == 1 })
	if storetest.Names(both.Current()) != "one two" {
		t.Errorf("a copy that wasn't restarted yet has %s", storetest.Names(both.Current()))
	}
	both.stop(t)
	last := c.start(t, storetest.Keyring(t, newer))
	if storetest.Names(last.Current()) != "one two" || !last.Current()[0].LastUpdated.Equal(set[0].LastUpdated) {
		t.Errorf("with the new key alone: %v", last.Current())
	}
	if last.logs.Len() != 0 {
		t.Errorf("it had something to say: %v", last.logs.All())
	}
}

// The end of the topic may be beyond its last record.
func TestEndWithoutRecords(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, c.keys)
	a.add(t, storetest.Hub("one"))
	client, err := kgo.NewClient(c.connect...)
	storetest.Must(t, err)
	defer client.Close()
	end, err := a.end(t.Context(), kadm.NewClient(client))
	storetest.Must(t, err)
	for offset, want := range map[int64]bool{0: false, end - 1: false, end: true} {
		got, err := a.emptyFrom(t.Context(), client, offset)
		if err != nil || got != want {
			t.Errorf("nothing from %d of %d: %t, %v", offset, end, got, err)
		}
	}
	a.stop(t)

	// All of it is taken away, and the end stays where it is.
	storetest.Must(t, c.fake.DeleteRecords(topic, 0, end))
	if again := c.start(t, c.keys); len(again.Current()) != 0 {
		t.Errorf("from an empty topic: %v", again.Current())
	} else if _, err := again.change(t, storetest.Add(storetest.Hub("two"))); err != nil {
		t.Error(err)
	}
}

type lines []string

func (*lines) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l *lines) Log(level kgo.LogLevel, message string, _ ...any) {
	*l = append(*l, level.String()+" "+message)
}

func TestFencingIsNoAlarm(t *testing.T) {
	var got lines
	log := quietLogger{&got}
	log.Log(kgo.LogLevelError, "fatal InitProducerID error", "broker", "1", "err", fmt.Errorf("x: %w", kerr.InvalidProducerEpoch))
	log.Log(kgo.LogLevelError, "fatal InitProducerID error", "err", kerr.TransactionalIDAuthorizationFailed)
	log.Log(kgo.LogLevelDebug, "fenced", "err", kerr.ProducerFenced)
	if want := "[INFO fatal InitProducerID error ERROR fatal InitProducerID error DEBUG fenced]"; fmt.Sprint(got) != want {
		t.Errorf("logged %v, want %s", got, want)
	}
}
