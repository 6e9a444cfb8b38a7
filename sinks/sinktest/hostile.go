package sinktest

import (
	"bytes"
	"context"
	"net"
	"regexp"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// hostileCase is a row of the table of hostile services: what comes from one in
// place of a frame of the real service, and what has to follow. Whatever comes,
// its endpoint backs off, the process stays small, nothing of it goes on running,
// and the endpoint next to it is delivered to.
type hostileCase struct {
	name string
	// at is the frame of the service's that is replaced, by its performative; with
	// batch not before the client has sent a batch.
	at    byte
	batch bool
	// send sends something to the client in place of the frame, and returns
	// whether it goes on as if nothing were. nil: nothing more comes.
	send func(p *peer, frame []byte) (goOn bool)

	// keep reports whether a frame of the client's is kept from the service.
	keep func(code byte, frame []byte) bool

	reason event.Reason
	cause  string // what LastError names: a regular expression
}

// peer is a hostile service's end of a connection.
type peer struct {
	net.Conn
	sent *atomic.Int64 // bytes, on all connections
}

const (
	// flood is how much comes that never should: enough to be seen in memory, and
	// no more, for the machine's sake.
	flood = 256 << 20
	// maxGrowth is what a case may add to the process's memory, in objects and
	// stacks, with room for the emulated service and the tests themselves.
	maxGrowth = 128 << 20
	// maxSent is how much of a flood may be sent before the connection is cut:
	// what fits in the buffers of sockets, for a few connections.
	maxSent = 64 << 20
)

// hostileOptions make an endpoint back off at the first batch that fails, and
// stay so for the rest of the test.
var hostileOptions = sinks.Options{
	Linger: time.Millisecond, MaxEvents: 50, BackoffInitial: time.Hour, BackoffMax: time.Hour,
	Timeout: 1500 * time.Millisecond, Attempts: 2, ThrottleLimit: time.Minute,
}

// RunHostile runs the table against a sink. The rows with a flood run one by one,
// since what they cost is the whole process's.
func RunHostile(t *testing.T, s Service) {
	if s.isGrid() {
		return
	}
	neighbour := newEnv(t, s, faultCase{}, false)
	neighbour.three("before")
	neighbour.expect("before", neighbour.settled(), 6, 0)
	delivered := uint64(6)
	check := func(t *testing.T, run func(t *testing.T)) {
		known := goleak.IgnoreCurrent()
		growth := watchMemory()
		run(t)
		if grown := growth(); grown > maxGrowth {
			t.Errorf("the process grew by %d MiB", grown>>20)
		}
		delivered += neighbour.three("meanwhile")
		neighbour.expect("the neighbour", neighbour.settled(), delivered, 0)
		if err := goleak.Find(known); err != nil {
			t.Error(err)
		}
	}
	for _, c := range hostileCases() {
		t.Run(c.name, func(t *testing.T) {
			check(t, func(t *testing.T) { c.run(t, s, neighbour.emulator) })
		})
	}
	t.Run("quiet", func(t *testing.T) {
		check(t, func(t *testing.T) {
			var tests []subtest
			for _, c := range quietCases() {
				tests = append(tests, subtest{c.name, func(t *testing.T) { c.run(t, s, neighbour.emulator) }})
			}
			runParallel(t, tests)
		})
	})
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	if err := neighbour.Close(ctx); err != nil {
		t.Error(err)
	}
}

func (c hostileCase) run(t *testing.T, s Service, service *emulator.Emulator) {
	var sent atomic.Int64
	endpoint, stop := c.relayed(t, s, service, &sent)
	e := &env{
		t: t, service: s, emulator: service,
		letters: letters{stored: make(map[eventID]letter)},
		next:    make(map[int32]int64), sent: make(map[eventID]string), lastErrors: make(map[string]bool),
	}
	core, logs := observer.New(zap.DebugLevel)
	e.logs = logs
	e.Sender = sinks.NewSender(endpoint, hostileOptions, s.Opener(nil, nil), &e.letters, zap.New(core))

	e.dispatch(0, "one", "two")
	snap := e.settled()
	if snap.State != sinks.StateBackingOff || snap.Counts.Dropped[c.reason] != 2 {
		t.Errorf("state %s, delivered %d, dropped %v, want two %s", snap.State, snap.Counts.Delivered, snap.Counts.Dropped, c.reason)
	}
	if !regexp.MustCompile(c.cause).MatchString(snap.LastError) {
		t.Errorf("the last error is %.300q, want %q", snap.LastError, c.cause)
	}
	e.await("nothing of the SDK's runs", func(sinks.Snapshot) bool { return running() == "" })
	if n := sent.Load(); n > maxSent {
		t.Errorf("%d MiB were taken from it", n>>20)
	}

	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	begun := time.Now()
	_ = e.Close(ctx) // its peer doesn't play its part in that
	if took := time.Since(begun); took > waitTimeout/2 {
		t.Errorf("Close took %v", took)
	}
	stop()
}

// relayed returns the service's endpoint as it is reached through the case.
func (c hostileCase) relayed(t testing.TB, s Service, service *emulator.Emulator, sent *atomic.Int64) (endpoint endpoints.Endpoint, stop func()) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", ownLoopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { c.relay(&peer{client, sent}, service.AMQPAddr()) })
		}
	})
	endpoint = s.endpoint(service)
	endpoint.ConnectionString = strings.Replace(endpoint.ConnectionString, service.AMQPAddr(), listener.Addr().String(), 1)
	endpoint.SecondaryConnectionString = ""
	return endpoint, func() {
		_ = listener.Close()
		serving.Wait()
	}
}

// relay passes bytes between a client and the service until the case's frame.
func (c hostileCase) relay(client *peer, address string) {
	service, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
	if err != nil {
		_ = client.Close()
		return
	}
	var up sync.WaitGroup
	defer func() {
		_ = client.Close()
		_ = service.Close()
		up.Wait()
	}()
	var sending atomic.Bool
	gone := make(chan struct{}) // the client has closed its end
	up.Go(func() {
		defer close(gone)
		for {
			frame, code, err := readFrame(client)
			if err != nil {
				return
			}
			if code == atTransfer && bytes.Contains(frame[:min(len(frame), 80)], batchFormat) {
				sending.Store(true)
			}
			if c.keep != nil && c.keep(code, frame) {
				continue
			}
			if _, err := service.Write(frame); err != nil {
				return
			}
		}
	})
	for {
		frame, code, err := readFrame(service)
		if err != nil {
			return
		}
		if code == c.at && (!c.batch || sending.Load()) {
			if c.send == nil || !c.send(client, frame) {
				<-gone // it is the client's to end it
				return
			}
			continue
		}
		if _, err := client.Write(frame); err != nil {
			return
		}
	}
}

// Write counts what was sent.
func (p *peer) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	p.sent.Add(int64(n))
	return n, err
}

// flood sends something again and again.
func (p *peer) flood(what []byte) {
	what = bytes.Repeat(what, max(1, 64<<10/len(what)))
	for n := 0; n < flood; n += len(what) {
		if _, err := p.Write(what); err != nil {
			return
		}
	}
}

// watchMemory watches how much memory the process has in use, until the function
// that it returns is called, which returns by how much that grew.
func watchMemory() (growth func() uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	inUse := func() uint64 {
		metrics.Read(samples)
		return samples[0].Value.Uint64() + samples[1].Value.Uint64()
	}
	runtime.GC()
	before := inUse()
	most := before
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, inUse())
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return func() uint64 {
		close(stop)
		watching.Wait()
		return most - before
	}
}

// ofSDK matches the stack of a goroutine of the SDKs'.
var ofSDK = regexp.MustCompile(`\n[^\n]*(go-amqp|azeventhubs|azservicebus)`)

// running returns the stack of a goroutine of the SDKs' that has work to do, if any.
func running() string {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		if strings.Contains(head, "[runn") && ofSDK.MatchString(stack) {
			return stack
		}
	}
	return ""
}
