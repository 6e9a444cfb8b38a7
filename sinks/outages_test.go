package sinks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// namespace is one with n endpoints, whose service works while up, and takes what it
// gets unless it refuses all.
type namespace struct {
	t       *testing.T
	up      atomic.Bool
	refuses atomic.Bool
	senders []*Sender
	outages *Outages
	logs    *observer.ObservedLogs
	next    int64
}

func newNamespace(t *testing.T, n int) *namespace {
	core, logs := observer.New(zapcore.InfoLevel)
	log := zap.New(core)
	ns := &namespace{t: t, outages: NewOutages(log), logs: logs}
	open := func(endpoint endpoints.Endpoint, _ Key) (Sink, error) {
		return sinkFunc(func(events []*event.Event) (int, error) {
			switch {
			case ns.refuses.Load():
				return len(events), &Error{Reason: event.Rejected, Err: errors.New(endpoint.Path + " takes no such events")}
			case ns.up.Load():
				return len(events), nil
			}
			return 0, &Error{Reason: event.Unreachable, Cause: "connection_refused", Err: errors.New(endpoint.Path + " refuses connections")}
		}), nil
	}
	o := Options{
		Linger: time.Millisecond, MaxEvents: 10, BackoffInitial: time.Second, BackoffMax: time.Minute, Timeout: time.Second, Attempts: 1,
		Outages: ns.outages,
	}
	for i := range n {
		ns.senders = append(ns.senders, NewSender(endpoints.Endpoint{
			ID: fmt.Sprint(i), Name: fmt.Sprint("n", i), Type: endpoints.TypeEventHub, Path: fmt.Sprint("hub-", i),
			ConnectionString: "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=p;SharedAccessKey=a2V5a2V5",
		}, o, open, stored{}, log))
	}
	return ns
}

// sinkFunc is a sink that is its Send.
type sinkFunc func([]*event.Event) (int, error)

func (f sinkFunc) Send(_ context.Context, events []*event.Event) (int, error) { return f(events) }

func (f sinkFunc) Close(context.Context) error { return nil }

// stored is dead letters that are stored at once.
type stored struct{}

func (stored) Put(ev *event.Event, _ event.Reason, _ string, _ *Recipient) { ev.Chunk.Settle(1) }

// feed sends an event a second to each endpoint.
func (ns *namespace) feed(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		for _, s := range ns.senders {
			c := event.NewChunk("t", 0, 1, 0, func(*event.Chunk) {})
			c.Add(ns.next, time.Now().UnixMilli(), 0, nil, []byte("{}"))
			ns.next++
			c.Events = append(c.Events, event.Event{Chunk: c, Record: &c.Records[0], Index: event.NoIndex, Type: event.SensorChange, Body: c.Records[0].Value})
			if err := s.Enqueue(ns.t.Context(), c, []*event.Event{&c.Events[0]}); err != nil {
				ns.t.Error(err)
			}
			c.Settle(1)
		}
	}
}

// lines returns what was logged since the last call.
func (ns *namespace) lines() (lines []observer.LoggedEntry) { return ns.logs.TakeAll() }

func (ns *namespace) close() {
	for _, s := range ns.senders {
		if err := s.Close(ns.t.Context()); err != nil {
			ns.t.Error(err)
		}
	}
	ns.outages.Close()
}

// counted returns how many endpoints some lines are about, and how many lines have
// no endpoint of their own.
func counted(lines []observer.LoggedEntry, snippet string) (endpoints, sums int64) {
	for _, l := range lines {
		fields := l.ContextMap()
		switch n, is := fields["endpoints"].(int64); {
		case !strings.Contains(l.Message, snippet):
		case is:
			endpoints += n
			sums++
		default:
			endpoints++
		}
	}
	return endpoints, sums
}

// A hundred endpoints of a host that take nothing, and then take events again, have a
// handful of lines each time.
func TestRefusalsOfAHostAreTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		ns := newNamespace(t, n)
		defer ns.close()
		ns.up.Store(true)
		ns.feed(20 * time.Second)
		ns.lines()
		for round := range 2 {
			ns.refuses.Store(true)
			ns.feed(2 * time.Minute)
			lines := ns.lines()
			if told, sums := counted(lines, "one event after the other"); told != n || sums < 1 || len(lines) > 10 {
				t.Errorf("round %d: %d endpoints are said to refuse events, in %d sums, %d lines", round, told, sums, len(lines))
			}
			ns.refuses.Store(false)
			ns.feed(time.Minute)
			lines = ns.lines()
			if told, sums := counted(lines, ""); told != n || sums < 1 || len(lines) > 10 {
				t.Errorf("round %d: of %d endpoints it is said that they take events again, in %d sums, %d lines", round, told, sums, len(lines))
			}
			if off, _ := lines[0].ContextMap()["off"].(time.Duration); off < time.Minute {
				t.Errorf("round %d: %v", round, lines[0].ContextMap())
			}
		}
	})
}

// What is logged of an endpoint has the name that it has by then, and so have its
// dead letters.
func TestLinesOfARenamedEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNamespace(t, 1)
		defer ns.close()
		ns.up.Store(true)
		ns.feed(2 * time.Second)
		e := ns.senders[0].Endpoint()
		e.Name = "another"
		if ns.senders[0].Update(e) != nil {
			t.Error("a new name is a new connection")
		}
		if to := ns.senders[0].outcomes.recipient.Load(); to.Name != "another" {
			t.Errorf("dead letters are of %+v", to)
		}
		ns.lines()
		ns.up.Store(false)
		ns.feed(2 * time.Second)
		if lines := ns.lines(); len(lines) == 0 || lines[0].ContextMap()["name"] != "another" {
			t.Errorf("%v", lines)
		}
	})
}

// A hundred endpoints on a host that goes away have a handful of lines, and so have
// they when it is back.
func TestOneOutageIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		ns := newNamespace(t, n)
		defer ns.close()
		ns.up.Store(true)
		ns.feed(20 * time.Second)
		ns.lines()
		ns.up.Store(false)
		ns.feed(10 * time.Minute)
		down := ns.lines()
		if told, sums := counted(down, "back"); told != n || sums < 1 {
			t.Errorf("%d endpoints are said to back off, in %d sums", told, sums)
		}
		if len(down) > 12 {
			t.Errorf("%d lines about one host", len(down))
		}
		first, sum := down[0].ContextMap(), down[1].ContextMap()
		if down[0].Level != zap.WarnLevel || first["endpoint"] == nil || first["name"] == nil || first["cause"] != "connection_refused" {
			t.Errorf("the first line is %v", first)
		}
		if sum["host"] != "ns.servicebus.windows.net" || sum["endpoints"] != int64(n-1) || sum["reason"] != "unreachable" || sum["error"] == nil {
			t.Errorf("the second line is %q %v", down[1].Message, sum)
		}
		if took := down[1].Time.Sub(down[0].Time); took > 5*time.Second {
			t.Errorf("the others are told of after %v", took)
		}
		ns.up.Store(true)
		ns.feed(2 * time.Minute)
		up := ns.lines()
		if told, _ := counted(up, "ready"); told != n {
			t.Errorf("%d endpoints are said to be ready", told)
		}
		if len(up) > 20 {
			t.Errorf("%d lines about a host that is back", len(up))
		}
		for _, l := range up {
			if !strings.Contains(l.Message, "ready") {
				continue
			}
			if off, _ := l.ContextMap()["off"].(time.Duration); off < 10*time.Minute || l.ContextMap()["dropped"] == nil {
				t.Errorf("a recovery doesn't say how long it was off, or what that cost: %v", l.ContextMap())
			}
		}
	})
}

// Another cause at the same host, and an endpoint at its own, are not lost in the sum.
func TestOutagesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		o := NewOutages(zap.New(core))
		defer o.Close()
		failed := func(endpoint, host, cause string) {
			o.say(report{turn: turnBackOff, host: host, endpoint: endpoint, cause: cause, what: endpoint, log: zap.New(core), err: errors.New(cause)})
		}
		expect := func(when string, want ...string) {
			t.Helper()
			time.Sleep(outageWindow)
			synctest.Wait()
			var got []string
			for _, l := range logs.TakeAll() {
				got = append(got, l.Message)
				if fields := l.ContextMap(); fields["cause"] != fields["error"] {
					t.Errorf("%s: the cause is %q, of %q", when, fields["cause"], fields["error"])
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		failed("a", "h", "not_found")
		failed("b", "h", "disabled")
		failed("c", "i", "not_found")
		expect("each by itself", "a", "b", "c")
		failed("a", "h", "not_found")
		expect("alone again", "a")
		failed("d", "h", "not_found")
		expect("one more has its own line", "d")
		failed("e", "h", "not_found")
		failed("f", "h", "not_found")
		expect("two more", together[turnBackOff])
		failed("e", "h", "not_found")
		failed("a", "h", "not_found")
		expect("nothing new", "endpoints of the host still fail for the same cause")
		failed("a", "h", "not_found")
		expect("nothing new at once")
		expect("nothing new, later", "a")

		unknown := func(entity, text string) {
			o.say(report{turn: turnBackOff, host: "j", endpoint: entity, path: entity, cause: text, what: entity, log: zap.New(core), err: errors.New(text)})
		}
		unknown("twins-1", `internal trouble of "twins-1" (tracking id 4f2d-1)`)
		unknown("alerts", `internal trouble of "alerts" (tracking id 99ab-7)`)
		unknown("rooms", `internal trouble of "rooms" (tracking id 0000-0)`)
		unknown("other", `another trouble of "other" (tracking id 0000-0)`)
		expect("a cause without a word", "twins-1", "other", together[turnBackOff])

		for i := range 2 * maxOutages {
			failed(fmt.Sprint("x", i), fmt.Sprint("host ", i), "?")
		}
		if o.count > maxOutages {
			t.Errorf("%d outages are remembered", o.count)
		}
		if got := len(logs.TakeAll()); got != 2*maxOutages {
			t.Errorf("%d lines of %d hosts", got, 2*maxOutages)
		}
	})
}

// What was gathered is written when the process stops, and nothing is kept after that.
func TestOutagesClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		o := NewOutages(zap.New(core))
		for i := range 4 {
			if i == 3 {
				o.Close()
			}
			o.say(report{turn: turnBackOff, host: "h", endpoint: fmt.Sprint(i), cause: "c", what: "one", log: zap.New(core), err: errors.New("c")})
		}
		if all := logs.All(); len(all) != 3 || all[1].ContextMap()["endpoints"] != int64(2) {
			t.Errorf("logged %v", all)
		}
	})
}
