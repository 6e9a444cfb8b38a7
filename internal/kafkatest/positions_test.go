//go:build integration

package kafkatest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/stages/ingest"
)

// What is committed beside a mark reaches the next owner of a partition, one that
// nothing is in as well: after a change, a crash, a rebalance and an end in order. A
// copy that was taken for dead, and sends its commit once another one has the
// partition, changes nothing.
func TestPositionsReachTheNextOwner(t *testing.T) {
	ctx := within(t)
	c, err := Start(ctx, Config{Dir: t.TempDir(), Properties: map[string]string{
		"group.consumer.min.session.timeout.ms": "6000", "group.consumer.session.timeout.ms": "6000",
		"group.consumer.min.heartbeat.interval.ms": "1000", "group.consumer.heartbeat.interval.ms": "1000",
		"group.initial.rebalance.delay.ms": "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, protocol := range []string{config.ProtocolClassic, config.ProtocolConsumer} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			testPositions(ctx, t, c.Addrs(), protocol)
		})
	}
}

func testPositions(ctx context.Context, t *testing.T, brokers []string, protocol string) {
	t.Helper()
	cfg := config.Default().Ingest
	cfg.Brokers, cfg.Topics, cfg.Group, cfg.Protocol = brokers, []string{protocol}, "group-"+protocol, protocol
	cfg.SessionTimeout, cfg.RebalanceTimeout = 6*time.Second, 10*time.Second
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, 2, 1, nil, protocol); err != nil {
		t.Fatal(err)
	}
	for range 10 { // nothing is in the other partition
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: protocol, Value: []byte("{}")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	marks := []int{10, 0}
	committed := func(p int32) string {
		offsets, err := admin.FetchOffsets(ctx, cfg.Group)
		if err != nil {
			return err.Error() // there is no group yet, or no coordinator
		}
		o, _ := offsets.Lookup(protocol, p)
		return fmt.Sprint(o.At, " ", o.Metadata)
	}
	both := func(what string, got func(int32) string, text string) {
		t.Helper()
		for p := range int32(2) {
			want := fmt.Sprint(marks[p], " ", text)
			for last := ""; last != want; {
				if last = got(p); last != want && !wait(ctx) {
					t.Fatalf("%s: partition %d has %q, want %q", what, p, last, want)
				}
			}
		}
	}
	owns := func(what string, s *ingest.Source, n int) {
		t.Helper()
		for len(s.Status().Partitions) != n {
			if !wait(ctx) {
				t.Fatalf("%s: it has the partitions %v", what, s.Status().Partitions)
			}
		}
	}

	var network slowNetwork
	x := &texts{text: "first", found: make(map[int32]string)}
	a, stopA := consumeTexts(ctx, t, cfg, x, kgo.Dialer(network.dial))
	defer stopA()
	both("committed", committed, "first")
	x.set("second")
	both("a change without an event", committed, "second")

	network.hold.Lock()
	x.set("stale") // is composed, and waits to be sent
	y := &texts{text: "third", revoked: "of the revocation", found: make(map[int32]string)}
	b, stopB := consumeTexts(ctx, t, cfg, y)
	owns("after the crash", b, 2)
	both("after the crash", y.of, "second")
	both("the next owner commits", committed, "third")
	x.forget()
	network.hold.Unlock()
	sent := int32(0) // before it is told of a partition again
	for len(a.Status().Partitions) != 1 || len(b.Status().Partitions) != 1 || x.of(a.Status().Partitions[0]) == "" {
		if n := network.stale.Load(); x.of(0) == "" && x.of(1) == "" {
			sent = n
		}
		for p := range int32(2) {
			if got := committed(p); strings.HasSuffix(got, "stale") && x.of(p) == "" {
				t.Fatalf("partition %d has %q, of who doesn't own it any more", p, got)
			}
		}
		if !wait(ctx) {
			t.Fatal("the first one doesn't come back")
		}
	}
	if sent == 0 {
		t.Error("who was taken for dead has sent no commit")
	}
	went := a.Status().Partitions[0]
	if got, want := x.of(went), fmt.Sprint(marks[went], " of the revocation"); got != want {
		t.Errorf("a rebalance leaves %q, want %q", got, want)
	}
	y.set("fourth")
	stopB()
	owns("after the end", a, 2)
	for x.of(1-went) == "" && wait(ctx) {
	}
	if got, want := x.of(1-went), fmt.Sprint(marks[1-went], " of the revocation"); got != want {
		t.Errorf("the end leaves %q, want %q", got, want)
	}
	both("all is one's again", committed, "stale")
}

// wait waits for a moment; it returns false when ctx ends first.
func wait(ctx context.Context) bool {
	select {
	case <-time.After(50 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

func consumeTexts(ctx context.Context, t *testing.T, cfg config.Ingest, x *texts, opts ...kgo.Opt) (*ingest.Source, func()) {
	t.Helper()
	log := zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))                                       // shown where the test fails
	source, err := ingest.New(cfg, x, append(opts, kgo.SeedBrokers(cfg.Brokers...)), noHook{}, log) //nolint:contextcheck // it outlives the call; Close ends it
	if err != nil {
		t.Fatal(err)
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := source.Run(running, func(c *event.Chunk) bool { c.Settle(1); return true }); err != nil {
			t.Error(err)
		}
	}()
	return source, sync.OnceFunc(func() {
		cancel()
		<-done
		if err := source.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

type noHook struct{}

func (noHook) OnNewClient(*kgo.Client) {}

// texts are ingest.Positions of one text.
type texts struct {
	mu            sync.Mutex
	text, revoked string
	ending        map[*event.Ownership]bool
	found         map[int32]string // what Assigned is told
}

func (x *texts) Assigned(_ context.Context, o *event.Ownership, committed int64, metadata string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.found[o.Partition] = fmt.Sprint(committed, " ", metadata)
	return nil
}

func (x *texts) Metadata(_ context.Context, o *event.Ownership) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.revoked != "" && x.ending[o] {
		return x.revoked, nil
	}
	return x.text, nil
}

func (x *texts) Revoked(o *event.Ownership) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ending == nil {
		x.ending = make(map[*event.Ownership]bool)
	}
	x.ending[o] = true
}

func (*texts) TooLong(*event.Ownership, string) {}

func (*texts) Released(*event.Ownership) {}

func (x *texts) set(text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.text = text
}

func (x *texts) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.found)
}

func (x *texts) of(p int32) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.found[p]
}

// slowNetwork sends nothing while it is held, and all of it later.
type slowNetwork struct {
	hold  sync.RWMutex
	stale atomic.Int32 // commits of that text
}

func (n *slowNetwork) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return slowConn{c, n}, nil
}

type slowConn struct {
	net.Conn
	network *slowNetwork
}

func (c slowConn) Write(b []byte) (int, error) {
	c.network.hold.RLock()
	defer c.network.hold.RUnlock()
	if bytes.Contains(b, []byte("stale")) {
		c.network.stale.Add(1)
	}
	return c.Conn.Write(b)
}
