package sinktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/entra"
)

// env is a sender with a real service behind it and a dispatcher before it. Its
// fields are all that a test has: what it injects, dispatches and observes.
type env struct {
	*sinks.Sender
	t       *testing.T
	service Service
	test    faultCase

	emulator   *emulator.Emulator
	impostor   *emulator.Emulator // on its address, with a certificate of another CA
	credential credential

	keepDropped bool // as in the options
	letters     letters
	logs        *observer.ObservedLogs

	next map[int32]int64
	sent map[eventID]string // all that was dispatched, with the text in it

	mu         sync.Mutex
	unsettled  int
	lastErrors map[string]bool // all that were seen
}

// keys have every character that some encoding escapes.
var keys = emulator.KeyPair{Primary: "cHJpbWFyeStrZXkvb2YvdGhlL3N1aXRlPz8/Pz4+Pj4=", Secondary: "c2Vjb25kYXJ5K2tleS9vZi90aGUvc3VpdGU/Pz8+Pj4="}

// newEnv starts the service and makes the sender. With keepDropped, events that
// are dropped become dead letters, so that each event's outcome is known; half
// of the tests run without.
func newEnv(t *testing.T, s Service, test faultCase, keepDropped bool) *env {
	e := &env{
		t: t, service: s, test: test, keepDropped: keepDropped,
		letters: letters{stored: make(map[eventID]letter)},
		next:    make(map[int32]int64), sent: make(map[eventID]string), lastErrors: make(map[string]bool),
	}
	e.emulator = s.start(t, keys, func(c *emulator.Config) {
		c.AMQPTLS = test.tls || test.identity // a token never travels in plain text
		c.BearerToken = bearerToken
	})
	core, logs := observer.New(zapcore.DebugLevel)
	e.logs = logs
	o := options
	o.KeepDropped = keepDropped
	endpoint := s.endpoint(e.emulator)
	switch {
	case test.oneKey:
		endpoint.SecondaryConnectionString = ""
	case test.identity:
		endpoint = s.identityEndpoint(e.emulator)
	}
	e.credential.scope = s.scope()
	open := s.Opener(dialerTo(e.emulator), entra.Of(&e.credential))
	e.Sender = sinks.NewSender(endpoint, o, open, &e.letters, zap.New(core))
	return e
}

// watch takes snapshots until the function that it returns is called.
func (e *env) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			e.snapshot()
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// snapshot returns a snapshot and checks its equation.
func (e *env) snapshot() sinks.Snapshot {
	snap := e.Snapshot()
	c := &snap.Counts
	if c.Pending < 0 || c.Routed != c.Delivered+c.DroppedTotal()+uint64(c.Pending) {
		e.t.Errorf("routed %d != delivered %d + dropped %v + pending %d", c.Routed, c.Delivered, c.Dropped, c.Pending)
	}
	e.mu.Lock()
	e.lastErrors[snap.LastError] = true
	e.mu.Unlock()
	return snap
}

// dispatch enqueues one chunk with an event for each text, as the pipeline does.
func (e *env) dispatch(partition int32, texts ...string) {
	settled := false
	e.mu.Lock()
	e.unsettled++
	e.mu.Unlock()
	first := e.next[partition]
	c := newChunk(partition, first, texts, func(c *event.Chunk) {
		e.mu.Lock()
		if settled {
			e.t.Error("a chunk was settled twice")
		}
		settled = true
		e.unsettled--
		e.mu.Unlock()
		c.Free()
	})
	for i, text := range texts {
		e.sent[eventID{partition, first + int64(i)}] = text
	}
	e.next[partition] += int64(len(texts))
	run := make([]*event.Event, len(c.Events))
	for i := range c.Events {
		run[i] = &c.Events[i]
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	if err := e.Enqueue(ctx, c, run); err != nil {
		e.t.Errorf("Enqueue: %v", err)
		return
	}
	c.Settle(1)
}

// await polls until ok holds for a snapshot, and returns that one.
func (e *env) await(what string, ok func(sinks.Snapshot) bool) sinks.Snapshot {
	e.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(waitTimeout); ; <-tick.C {
		snap := e.snapshot()
		if ok(snap) {
			return snap
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("waited in vain until %s: state %s, delivered %d, dropped %v, pending %d, last error %q",
				what, snap.State, snap.Counts.Delivered, snap.Counts.Dropped, snap.Counts.Pending, snap.LastError)
		}
	}
}

// settled waits until every event has its outcome.
func (e *env) settled() sinks.Snapshot {
	e.t.Helper()
	return e.await("every event has its outcome", func(s sinks.Snapshot) bool { return s.Counts.Pending == 0 })
}

// target is what the fault is injected into.
func (e *env) target() string {
	if e.test.whole && !e.service.isGrid() {
		return emulator.Namespace
	}
	return entity
}

// inject starts the fault, for so many times; 0 is until it is repaired.
func (e *env) inject(times int) {
	e.t.Helper()
	switch {
	case e.test.inject != nil:
		e.test.inject(e)
	case e.test.tokens != nil:
		e.credential.fail(e.test.tokens)
	default:
		f := e.test.fault
		f.Times = times
		e.setFault(f)
	}
}

// repair ends the fault.
func (e *env) repair() {
	e.t.Helper()
	switch {
	case e.test.repair != nil:
		e.test.repair(e)
	case e.test.tokens != nil:
		e.credential.fail(nil)
	default:
		e.clearFault()
	}
}

func (e *env) setFault(f emulator.Fault) {
	e.t.Helper()
	if err := e.emulator.SetFault(e.target(), f); err != nil {
		e.t.Fatal(err)
	}
}

// clearFault waits for the port of a service that was down: it may be in use
// for a moment, by a connection that the system gave it to.
func (e *env) clearFault() {
	e.t.Helper()
	e.await("the fault is cleared", func(sinks.Snapshot) bool { return e.emulator.ClearFault(e.target()) == nil })
}

// moveToNowhere changes the endpoint to a host that doesn't exist: names under
// .invalid never resolve (RFC 2606).
func (e *env) moveToNowhere() {
	endpoint := e.service.endpoint(e.emulator)
	if e.service.isGrid() {
		endpoint.Path = "twins.invalid"
	} else {
		for _, c := range []*string{&endpoint.ConnectionString, &endpoint.SecondaryConnectionString} {
			*c = strings.Replace(*c, e.emulator.AMQPAddr(), "twins.invalid", 1)
		}
	}
	e.update(endpoint)
}

func (e *env) moveBack() { e.update(e.service.endpoint(e.emulator)) }

// update changes the endpoint, as the API does.
func (e *env) update(endpoint endpoints.Endpoint) {
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	if err := e.Update(endpoint)(ctx); err != nil {
		e.t.Errorf("closing the old connection: %v", err)
	}
}

// wrongCertificate replaces the service by one with a certificate of another CA.
func (e *env) wrongCertificate() {
	address := e.emulator.AMQPAddr()
	if e.service.isGrid() {
		address = e.emulator.EventGridHost(entity)
	}
	e.setFault(emulator.Fault{Down: true})
	e.impostor = e.service.start(e.t, keys, func(c *emulator.Config) {
		if e.service.isGrid() {
			c.EventGridTopics[0].Listen = address
			return
		}
		c.AMQPTLS, c.AMQPListen = true, address
	})
}

// rightCertificate restores the service.
func (e *env) rightCertificate() {
	if err := e.impostor.Close(); err != nil {
		e.t.Error(err)
	}
	e.clearFault()
}

// eventID is an event's origin in Kafka.
type eventID struct {
	partition int32
	offset    int64
}

// newChunk returns a chunk of decoded events, one for each text, with their
// origin in their bodies.
func newChunk(partition int32, first int64, texts []string, settled func(*event.Chunk)) *event.Chunk {
	c := event.NewChunk("twins", partition, len(texts), 0, settled)
	for i, text := range texts {
		offset := first + int64(i)
		body := fmt.Appendf(nil, `{"id":"%d/%d","subject":"subject","eventType":"SensorChange","eventTime":"2026-01-02T03:04:05Z","dataVersion":"1.0","data":{"text":%q}}`,
			partition, offset, text)
		c.Add(offset, time.Now().UnixMilli(), 0, nil, body)
	}
	for i := range c.Records {
		r := &c.Records[i]
		c.Events = append(c.Events, event.Event{
			Chunk: c, Record: r, Index: event.NoIndex, Type: event.SensorChange, Body: r.Value,
			Subject: "subject", CorrelationID: "correlation",
		})
	}
	return c
}

// idOf returns the origin in an event's body.
func idOf(body []byte) (id eventID, ok bool) {
	_, err := fmt.Sscanf(string(body[:min(len(body), 60)]), `{"id":"%d/%d"`, &id.partition, &id.offset)
	return id, err == nil
}

// letters stores dead letters at once.
type letters struct {
	mu     sync.Mutex
	stored map[eventID]letter
}

type letter struct {
	reason event.Reason
	detail string
}

func (l *letters) Put(ev *event.Event, reason event.Reason, detail string, _ *sinks.Recipient) {
	l.mu.Lock()
	l.stored[eventID{ev.Chunk.Partition, ev.Record.Offset}] = letter{reason, detail}
	l.mu.Unlock()
	ev.Chunk.Settle(1)
}

func (l *letters) all() map[eventID]letter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.stored)
}

// bearerToken is the one that the emulated service accepts.
const bearerToken = "eyJ0eXAiOiJKV1QifQ.dG9rZW4tb2YtdGhlLXN1aXRl.c2lnbmF0dXJl"

// credential stands for Entra ID.
type credential struct {
	scope string

	mu  sync.Mutex
	err error
}

// GetToken implements azcore.TokenCredential.
func (c *credential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	switch {
	case errors.Is(err, errSilent):
		<-ctx.Done()
		return azcore.AccessToken{}, ctx.Err()
	case err != nil:
		return azcore.AccessToken{}, err
	case !slices.Equal(options.Scopes, []string{c.scope}):
		return azcore.AccessToken{}, errors.New("a token for another service")
	}
	return azcore.AccessToken{Token: bearerToken, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// fail makes requests for tokens fail with err; nil repairs it.
func (c *credential) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}
