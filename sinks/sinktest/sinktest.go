// Package sinktest tests a sink for what the design promises when sending fails:
// it runs a real sinks.Sender with the real SDK against the emulated service,
// over real sockets, and injects every fault that the service can have. Only
// tests import it.
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
	"twinegress/internal/outbound"
	"twinegress/sinks"
	"twinegress/sinks/entra"
)

// Service is the service of a sink that is tested.
type Service struct {
	Type   endpoints.Type
	Opener func(dialer *outbound.Dialer, identity *entra.Identity) sinks.Open
}

const (
	// entity is the hub's or topic's name.
	entity = "twins"
	// maxMessage is an AMQP entity's limit for one message.
	maxMessage = 256 << 10
	// partitions of the hub. Kafka has more here, so that some share one.
	partitions = 3
	// maxParallel is how many tests run at a time. They mostly wait: for
	// time-outs, back-offs and the service.
	maxParallel = 10
	// waitTimeout is far longer than what is waited for takes, which is
	// milliseconds, or a time-out or two.
	waitTimeout = 15 * time.Second
)

// options are short, so that every case has a whole back-off. The time-out is
// long enough for a first try, its failure and the second one on a busy machine:
// where it ends amid them, it would be the cause that is reported.
var options = sinks.Options{
	Linger: time.Millisecond, MaxEvents: 50,
	BackoffInitial: 80 * time.Millisecond, BackoffMax: 400 * time.Millisecond,
	Timeout: 4 * time.Second, Attempts: 3, ThrottleLimit: 1500 * time.Millisecond,
}

// protocol is the one that a fault exists in: 0 is either of them.
type protocol uint8

const (
	amqp protocol = 1 + iota // Event Hubs and Service Bus
	http                     // Event Grid
)

// speaks reports whether the service can have a fault of this protocol.
func (s Service) speaks(p protocol) bool { return p == 0 || (p == http) == s.isGrid() }

// isGrid reports whether the service is Event Grid, the one without AMQP.
func (s Service) isGrid() bool { return s.Type == endpoints.TypeEventGrid }

// start runs the emulated service.
func (s Service) start(t testing.TB, keys emulator.KeyPair, change func(*emulator.Config)) *emulator.Emulator {
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
	service, err := emulator.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	return service
}

// loopbacks counts the addresses of ownLoopback.
var loopbacks atomic.Uint32

// ownLoopback returns an address of this machine that no other service of the
// suite has. A service that is down has closed its port; on a shared address the
// next one to start might get that port, and answer what should be refused. To
// hold the port without listening doesn't help: Go sets SO_REUSEADDR, with which
// Linux assigns it all the same.
func ownLoopback() string {
	if runtime.GOOS != "linux" { // where 127.0.0.0/8 is one address only
		return "127.0.0.1"
	}
	n := loopbacks.Add(1)
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>16%255), byte(n >> 8), byte(n)}).String()
}

// endpoint returns the endpoint of an emulated service.
func (s Service) endpoint(service *emulator.Emulator) endpoints.Endpoint {
	endpoint := endpoints.Endpoint{
		ID: "4f2d1a5e-0000-4000-8000-000000000001", Type: s.Type, Path: entity,
		ConnectionString:          service.ConnectionString(emulator.Primary),
		SecondaryConnectionString: service.ConnectionString(emulator.Secondary),
		EventTypes:                []string{endpoints.SensorChange}, Overflow: endpoints.OverflowBlock,
	}
	if s.isGrid() {
		endpoint.Path = service.EventGridHost(entity)
		endpoint.ConnectionString = service.EventGridKey(entity, emulator.Primary)
		endpoint.SecondaryConnectionString = service.EventGridKey(entity, emulator.Secondary)
	}
	return endpoint
}

// identityEndpoint returns the same endpoint without its keys.
func (s Service) identityEndpoint(service *emulator.Emulator) endpoints.Endpoint {
	endpoint := s.endpoint(service)
	endpoint.Authentication = endpoints.AuthenticationIdentity
	endpoint.ConnectionString, endpoint.SecondaryConnectionString = "", ""
	if !s.isGrid() {
		endpoint.ConnectionString = "Endpoint=sb://" + service.AMQPAddr() + "/"
	}
	return endpoint
}

// scope returns the scope of tokens for the service.
func (s Service) scope() string {
	switch s.Type {
	case endpoints.TypeEventHub:
		return entra.EventHubs
	case endpoints.TypeServiceBus:
		return entra.ServiceBus
	}
	return entra.EventGrid
}

// dialerTo returns a dialer that trusts the emulated service.
func dialerTo(service *emulator.Emulator) *outbound.Dialer {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(service.CAPEM())
	return outbound.New(nil, func() *x509.CertPool { return roots })
}

// subtest is one of a table's tests.
type subtest struct {
	name string
	run  func(t *testing.T)
}

// runParallel runs tests side by side, more of them than t.Parallel would on a
// small machine.
func runParallel(t *testing.T, tests []subtest) {
	t.Helper()
	free := make(chan struct{}, maxParallel)
	var running sync.WaitGroup
	for _, test := range tests {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			t.Run(test.name, test.run)
		})
	}
	running.Wait()
}
