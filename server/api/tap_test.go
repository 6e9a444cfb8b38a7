package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/internal/event"
	"twinegress/server"
	"twinegress/sinks"
)

// pipes is a network of net.Pipe, on which virtual time passes.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { close(p.closed); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.accept <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// served is an env behind the listener that it has in production.
type served struct {
	*env
	listener *server.Listener
	client   *http.Client
}

// tapEnv runs a test in virtual time.
func tapEnv(t *testing.T, test func(t *testing.T, s *served)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := &pipes{make(chan net.Conn), make(chan struct{})}
		s := &served{env: newEnv(t), listener: server.On(network, "api.listen", 100, zap.NewNop())}
		s.listener.Serve(s.handler, zap.NewNop())
		transport := &http.Transport{DialContext: network.dial, DisableKeepAlives: true}
		s.client = &http.Client{Transport: transport}
		test(t, s)
		storetest.Must(t, s.listener.Close())
		transport.CloseIdleConnections()
	})
}

// message is a server-sent event, or a comment.
type message struct{ name, data string }

// tapStream is an open tap.
type tapStream struct {
	*testing.T
	response *http.Response
	lines    *bufio.Reader
	cancel   context.CancelFunc
}

func (s *served) open(query string) *tapStream {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x"+Base+"/endpoints/"+hubID+"/tap"+query, nil)
	storetest.Must(s.t, err)
	request.Header.Set("Authorization", "Bearer "+watcher)
	response, err := s.client.Do(request) //nolint:bodyclose // tapStream.close does
	storetest.Must(s.t, err)
	return &tapStream{s.t.(*testing.T), response, bufio.NewReader(response.Body), cancel}
}

func (s *tapStream) close() {
	s.cancel()
	storetest.Must(s.T, s.response.Body.Close())
	synctest.Wait()
}

// next returns the next event of the stream, and how many comments came before it.
func (s *tapStream) next() (m message, comments int) {
	s.Helper()
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			s.Fatal(err)
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); name {
		case "event":
			m.name = value
		case "data":
			m.data = value
		case "":
			if line == "\n" && m.data != "" {
				return m, comments
			}
			if strings.HasPrefix(line, ":") {
				comments++
			}
		default:
			s.Fatalf("line %q", line)
		}
	}
}

func unmarshal[T any](t *testing.T, m message) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(m.data), &v); err != nil {
		t.Fatalf("%v in %s", err, m.data)
	}
	return v
}

// send has the hub's sender deliver events.
func (s *served) send(bodies ...string) {
	s.t.Helper()
	c := event.NewChunk("twins", 3, len(bodies), 0, func(c *event.Chunk) { c.Free() })
	for i, body := range bodies {
		c.Add(int64(i), time.Now().UnixMilli(), 0, nil, []byte(body))
	}
	run := make([]*event.Event, len(bodies))
	for i := range run {
		run[i] = &event.Event{Chunk: c, Record: &c.Records[i], Index: event.NoIndex, Type: event.SensorChange, Body: c.Records[i].Value}
	}
	storetest.Must(s.t, s.sender().Enqueue(s.t.Context(), c, run))
	c.Settle(1)
	synctest.Wait()
}

func TestTap(t *testing.T) {
	tapEnv(t, func(t *testing.T, s *served) {
		tap := s.open("?rate=2&for=10m")
		if kind := tap.response.Header.Get("Content-Type"); tap.response.StatusCode != 200 || kind != "text/event-stream" {
			t.Fatal(tap.response.Status, kind)
		}
		m, _ := tap.next()
		start := unmarshal[TapStart](t, m)
		want := TapStart{"copy-1", TapEndpoint{hubID, "changes", "EventHub", "ns.servicebus.windows.net", "hub"}, 2, time.Now().Add(10 * time.Minute).UTC()}
		if m.name != "start" || start != want {
			t.Errorf("%s %+v, want %+v", m.name, start, want)
		}
		s.send("{\"a\":\"\u009b31m\u202e" + storetest.Key1 + "\"}")
		m, _ = tap.next()
		e := unmarshal[sinks.TapEntry](t, m)
		if m.name != "" || e.Outcome != "delivered" || e.EventType != "SensorChange" || e.Partition != 3 || e.MessageID != "id" || e.Latency == nil {
			t.Errorf("%s %+v", m.name, e)
		}
		if !strings.Contains(m.data, `\u009b31m\u202e***`) || e.Body != "{\"a\":\"\u009b31m\u202e***\"}" {
			t.Errorf("body %s", m.data)
		}
		s.send("1", "2", "3", "4", "5")
		m, _ = tap.next()
		if e := unmarshal[sinks.TapEntry](t, m); e.Skipped != 4 {
			t.Errorf("%d skipped: %s", e.Skipped, m.data)
		}
		storetest.Must(t, s.sender().Close(t.Context()))
		s.hub = nil
		m, _ = tap.next()
		if end := unmarshal[TapEnd](t, m); m.name != "end" || end != (TapEnd{sinks.TapStopped, sinks.TapCounts{Seen: 6, Shown: 2, Sampled: 4}}) {
			t.Errorf("%s %+v", m.name, end)
		}
		tap.close()
		// Who, what, from where, until when; and that it is over.
		var lines []string
		for _, l := range s.logs.FilterField(zap.Bool("audit", true)).All() {
			f := l.ContextMap()
			lines = append(lines, fmt.Sprint(l.LoggerName, " ", l.Message, " ", f["who"], " ", f["from"], " ", f["rate"], " ", f["until"] != nil, " ", f["reason"], " ", f["shown"], " ", f["endpoint"] != nil))
		}
		if got, want := strings.Join(lines, "\n"), "audit endpoint's events are shown watcher pipe 2 true <nil> <nil> true\n"+
			"audit endpoint's events are not shown any more watcher pipe <nil> false this copy stops 2 true"; got != want {
			t.Errorf("audit log:\n%s\nwant\n%s", got, want)
		}
	})
}

// A tap outlasts the time-outs of requests and says every 15 seconds that it is
// there; it ends when its time is over.
func TestTapOutlastsTimeouts(t *testing.T) {
	tapEnv(t, func(t *testing.T, s *served) {
		began := time.Now()
		tap := s.open("?for=15m")
		tap.next()
		m, comments := tap.next()
		if end := unmarshal[TapEnd](t, m); m.name != "end" || end.Reason != "its time is over" || comments < 59 || time.Since(began) != MaxTapTime {
			t.Errorf("after %v and %d heartbeats: %s %+v", time.Since(began), comments, m.name, end)
		}
		tap.close()
	})
}

// A reader that is gone, or takes nothing, ends its tap and holds nothing up.
func TestTapOfBadReaders(t *testing.T) {
	tapEnv(t, func(t *testing.T, s *served) {
		gone := s.open("")
		gone.close()
		silent := s.open("")
		synctest.Wait()
		large := strings.Repeat("x", 60<<10)
		for range 50 {
			s.send(large)
		}
		if n := s.sender().Snapshot().Counts.Pending; n != 0 {
			t.Errorf("%d events wait for a reader", n)
		}
		time.Sleep(tapWriteTimeout + time.Second)
		synctest.Wait()
		ends := s.logs.FilterMessage("endpoint's events are not shown any more").All()
		if len(ends) != 2 {
			t.Fatalf("%d taps ended", len(ends))
		}
		for _, l := range ends {
			if reason := l.ContextMap()["reason"]; reason != "its reader is gone, or takes nothing" {
				t.Error(reason)
			}
		}
		silent.close()
		// Neither is at the sender any more.
		s.send("another")
		for _, tap := range s.taps {
			if _, counts := tap.Take(); counts.Seen > 50 {
				t.Errorf("a tap without a reader sees %d events", counts.Seen)
			}
		}
	})
}

// Taps are few: of an endpoint, and on a copy.
func TestTapLimits(t *testing.T) {
	tapEnv(t, func(t *testing.T, s *served) {
		var open []*tapStream
		for range maxTapsOfOne {
			open = append(open, s.open(""))
		}
		over := s.open("")
		if over.response.StatusCode != 429 || over.response.Header.Get("Retry-After") == "" {
			t.Errorf("one more: %s", over.response.Status)
		}
		over.close()
		open[0].close()
		again := s.open("")
		if again.response.StatusCode != 200 {
			t.Errorf("after one has ended: %s", again.response.Status)
		}
		for _, tap := range append(open[1:], again) {
			tap.close()
		}
	})
	l := tapLimit{of: make(map[string]int)}
	for i := range maxTaps {
		if _, refused := l.enter(endpoints.Endpoint{ID: fmt.Sprint(i)}); refused != nil {
			t.Fatalf("tap %d: %v", i, refused)
		}
	}
	if _, refused := l.enter(endpoints.Endpoint{ID: "other"}); refused == nil || refused.status != 429 {
		t.Error("one more than a copy takes")
	}
}

// A copy that stops doesn't wait for taps.
func TestTapDoesNotHoldUpAStop(t *testing.T) {
	tapEnv(t, func(t *testing.T, s *served) {
		tap := s.open("?for=15m")
		tap.next()
		began := time.Now()
		storetest.Must(t, s.listener.Close())
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the stop took %v", took)
		}
		tap.close()
		// tapEnv's own Close finds a listener that is closed.
		s.listener = nil
	})
}

func TestTapParameters(t *testing.T) {
	r := newEnv(t)
	for query, want := range map[string]int{
		"?for=1ms&rate=1": 200, "?for=1ms&rate=" + strconv.Itoa(MaxTapRate): 200, "?for=1ms&rate=0": 400, "?for=1ms&rate=101": 400, "?for=1ms&rate=x": 400,
		"?for=0s": 400, "?for=-1s": 400, "?for=15m1ns": 400, "?for=1": 400, "?for=": 200,
	} {
		method := http.MethodGet
		if query == "?for=" {
			method, query = http.MethodHead, "" // there is no stream
		}
		w := r.do(call{method: method, path: Base + "/endpoints/" + hubID + "/tap" + query, token: watcher})
		if w.Code != want {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if w := r.do(call{method: "GET", path: Base + "/endpoints/" + gridID + "/tap", token: watcher}); w.Code != 503 {
		t.Errorf("one that doesn't run yet: %d %s", w.Code, w.Body)
	}
}
