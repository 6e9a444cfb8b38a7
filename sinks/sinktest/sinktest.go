// Package sinktest holds a sink to what the design promises when sending
// fails: it runs a real sinks.Sender with the real SDK against the emulated
// service, over real sockets, and makes that service fail in every way that it
// can. Tests only import it.
package sinktest

import (
	"context"
	"crypto/x509"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/entra"
)

// Service is what the suite has to know of a sink.
type Service struct {
	Type   endpoints.Type
	Opener func(roots *x509.CertPool, identity *entra.Identity) sinks.Open
}

const (
	// entity is the hub's or topic's name.
	entity = "twins"
	// maxMessage is what an AMQP entity takes in one message.
	maxMessage = 256 << 10
	// partitions of the hub. Kafka has more here, so that some share one.
	partitions = 3
	// atOnce is how many cells run at a time. They mostly wait: for time-outs,
	// back-offs and the service.
	atOnce = 10
	// patience is for what comes within milliseconds, or a time-out or two, on
	// a machine that isn't busy with other things.
	patience = 15 * time.Second
)

// options are short, so that every cell sees a whole back-off. The time-out is
// long enough for a first try, its failure and the second one on a machine that
// is busy with other things: where it passes amid them, that is the cause seen.
var options = sinks.Options{
	Linger: time.Millisecond, MaxEvents: 50,
	BackoffInitial: 80 * time.Millisecond, BackoffMax: 400 * time.Millisecond,
	Timeout: 4 * time.Second, Attempts: 3, ThrottleLimit: 1500 * time.Millisecond,
}

// isGrid reports whether the service is Event Grid and not one of the two that speak AMQP.
func (s Service) isGrid() bool { return s.Type == endpoints.TypeEventGrid }

// start runs the emulated service.
func (s Service) start(t *testing.T, keys emulator.KeyPair, change func(*emulator.Config)) *emulator.Emulator {
	t.Helper()
	address := ownLoopback() + ":0"
	c := emulator.Config{AMQPListen: address, Keys: keys, Record: 10_000, MaxMessageBytes: maxMessage}
	switch s.Type {
	case endpoints.TypeEventHub:
		c.Hubs = []emulator.Hub{{Name: entity, Partitions: partitions}}
	case endpoints.TypeServiceBus:
		c.Topics = []emulator.Topic{{Name: entity}}
	default:
		c.EventGridTopics = []emulator.GridTopic{{Name: entity, Listen: address, Keys: &keys}}
	}
	if change != nil {
		change(&c)
	}
	e, err := emulator.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// loopbacks counts what ownLoopback gave.
var loopbacks atomic.Uint32

// ownLoopback is an address of this machine that no other service of the suite
// has. A service that is down has closed its port; on an address that they
// shared the next one to start might get just that, and answer what should be
// refused. Holding the port without listening doesn't help: Go sets
// SO_REUSEADDR, with which Linux gives it away all the same.
func ownLoopback() string {
	if runtime.GOOS != "linux" { // where 127.0.0.0/8 is one address only
		return "127.0.0.1"
	}
	n := loopbacks.Add(1)
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>16%255), byte(n >> 8), byte(n)}).String()
}

// endpoint is the one that the emulated service stands behind.
func (s Service) endpoint(e *emulator.Emulator) endpoints.Endpoint {
	endpoint := endpoints.Endpoint{
		ID: "4f2d1a5e-0000-4000-8000-000000000001", Type: s.Type, Path: entity,
		ConnectionString:          e.ConnectionString(emulator.Primary),
		SecondaryConnectionString: e.ConnectionString(emulator.Secondary),
		EventTypes:                []string{endpoints.SensorChange}, Overflow: endpoints.OverflowBlock,
	}
	if s.isGrid() {
		endpoint.Path = e.EventGridHost(entity)
		endpoint.ConnectionString = e.EventGridKey(entity, emulator.Primary)
		endpoint.SecondaryConnectionString = e.EventGridKey(entity, emulator.Secondary)
	}
	return endpoint
}

func rootsOf(e *emulator.Emulator) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.CAPEM())
	return roots
}

// together runs tests side by side, more of them than t.Parallel would on a
// small machine.
func together(t *testing.T, names []string, run func(t *testing.T, i int)) {
	t.Helper()
	room := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for i, name := range names {
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			t.Run(name, func(t *testing.T) { run(t, i) })
		})
	}
	running.Wait()
}

// typed makes the chunk's records its events, as decoding does.
func typed(c *event.Chunk) {
	for i := range c.Records {
		r := &c.Records[i]
		c.Events = append(c.Events, event.Event{
			Chunk: c, Record: r, Index: event.NoIndex, Type: event.SensorChange, Body: r.Value,
			Subject: "subject", CorrelationID: "correlation",
		})
	}
}
