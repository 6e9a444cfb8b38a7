package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
)

const (
	// maxTaps and maxTapsOfOne bound the taps that are open at one time, on this copy:
	// each may keep 1 MiB of events.
	maxTaps      = 16
	maxTapsOfOne = 4
	// MaxTapRate bounds how many events a second a tap shows.
	MaxTapRate = 100
	// MaxTapTime bounds how long a tap is open: one that is forgotten ends by itself.
	MaxTapTime = 15 * time.Minute
	// tapHeartbeat is the longest silence: a proxy takes a longer one for the end.
	tapHeartbeat = 15 * time.Second
	// tapWriteTimeout is how long a reader may take nothing.
	tapWriteTimeout = 10 * time.Second
)

// TapStart is the first event of a tap's stream.
type TapStart struct {
	Copy     string      `json:"copy" doc:"the id of the copy that was asked: it sees its own share of the endpoint's events, those of its Kafka partitions"`
	Endpoint TapEndpoint `json:"endpoint"`
	Rate     int         `json:"rate" doc:"events a second that are shown at most"`
	Until    time.Time   `json:"until"`
}

// TapEndpoint is the endpoint that a tap is of.
type TapEndpoint struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
	Host string `json:"host"`
	Path string `json:"path"`
}

// TapEnd is the last event of a tap's stream.
type TapEnd struct {
	Reason string `json:"reason" doc:"why the tap ended"`
	sinks.TapCounts
}

// The stream's own events; one without a name is a sinks.TapEntry.
const (
	tapStarts = "start"
	tapEnds   = "end"
)

// tapLimit counts the taps that are open.
type tapLimit struct {
	mu   sync.Mutex
	of   map[string]int // by endpoint
	open int
}

// enter returns what ends a tap's share of the limit, or the reply that refuses it.
func (l *tapLimit) enter(e endpoints.Endpoint) (leave func(), _ *Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open >= maxTaps:
		return nil, failure(http.StatusTooManyRequests, fmt.Sprintf("%d taps are open on this copy, and no more can be: end one", maxTaps)).with("Retry-After", "60")
	case l.of[e.ID] >= maxTapsOfOne:
		return nil, failure(http.StatusTooManyRequests, fmt.Sprintf("%d taps of this endpoint are open on this copy, and no more can be: end one", maxTapsOfOne)).with("Retry-After", "60")
	}
	l.open++
	l.of[e.ID]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
		if l.of[e.ID]--; l.of[e.ID] == 0 {
			delete(l.of, e.ID)
		}
	}, nil
}

func registerTap(api huma.API, options Options) {
	schema := func(v any) *huma.Schema {
		return api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(v), true, "")
	}
	o := &tapOperation{operations{options}, tapLimit{of: make(map[string]int)}}
	huma.Register(api, huma.Operation{
		OperationID: "tapEndpoint", Method: http.MethodGet, Path: Base + "/endpoints/{id}/tap", Tags: tags,
		Summary: "See events of an endpoint as they are sent",
		Description: "Server-sent events: `start`, then an event without a name for each event that is shown, then `end`; a comment every 15 seconds. " +
			"It is a sample of what got its outcome on the copy that is asked. It needs the right to see events. " +
			fmt.Sprintf("%d taps of an endpoint can be open on a copy, %d in all. ", maxTapsOfOne, maxTaps) +
			"Who reads too slowly misses events, which are counted, and holds nobody up.",
		Errors: []int{400, 401, 403, 404, 429, 503},
		Responses: map[string]*huma.Response{"200": {
			Description: "The data of each event is one of these, in JSON",
			Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{
				OneOf: []*huma.Schema{schema(TapStart{}), schema(sinks.TapEntry{}), schema(TapEnd{})},
			}}},
		}},
	}, o.tap)
}

type tapOperation struct {
	operations
	limit tapLimit
}

func (o *tapOperation) tap(ctx context.Context, in *struct {
	ByID
	Rate int    `query:"rate" minimum:"1" maximum:"100" default:"10" doc:"events a second that are shown at most"`
	For  string `query:"for" default:"1m" doc:"how long, at most 15m"`
},
) (*huma.StreamResponse, error) {
	if err := maySeeEvents(ctx); err != nil {
		return nil, err
	}
	period, err := time.ParseDuration(in.For)
	if err != nil || period <= 0 || period > MaxTapTime {
		const must = "must be a duration of at most 15m, such as 90s"
		return nil, failureWith(http.StatusBadRequest, "the request is not valid", []Detail{{Field: "for", Message: must}})
	}
	e, err := o.stored(in.ID)
	if err != nil {
		return nil, err
	}
	leave, refused := o.limit.enter(e)
	if refused != nil {
		return nil, refused
	}
	t, ok := o.Pipeline.Tap(e.ID, in.Rate)
	if !ok {
		leave()
		return nil, o.notRunning(e.ID)
	}
	return &huma.StreamResponse{Body: func(reply huma.Context) {
		defer leave()
		defer t.Close()
		w := reply.BodyWriter().(http.ResponseWriter) // humago's is one
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // a proxy must not keep back what is read live
		if reply.Method() == http.MethodHead {
			return
		}
		until := time.Now().Add(period)
		o.audit(ctx, "endpoint's events are shown", e, nil, zap.Int("rate", in.Rate), zap.Time("until", until))
		s := stream{w: w, control: http.NewResponseController(w)}
		end := s.tap(ctx, t, TapStart{
			Copy: o.Fleet.ID(), Rate: in.Rate, Until: until.UTC(),
			Endpoint: TapEndpoint{ID: e.ID, Name: e.Name, Type: string(e.Type), Host: e.Host(), Path: e.Path},
		})
		o.audit(ctx, "endpoint's events are not shown any more", e, nil, zap.String("reason", end.Reason), zap.Int("shown", end.Shown))
	}}, nil
}

// stream writes server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	failed  error
}

// tap writes a tap's stream until its time is over, it ends or the reader is gone.
func (s *stream) tap(ctx context.Context, t *sinks.Tap, start TapStart) TapEnd {
	s.event(tapStarts, start)
	over := time.NewTimer(time.Until(start.Until))
	defer over.Stop()
	beat := time.NewTicker(tapHeartbeat)
	defer beat.Stop()
	var end TapEnd
	for end.Reason == "" {
		s.flush()
		select {
		case <-t.Ready():
		case <-beat.C:
			s.write(": \n\n")
		case <-t.Done():
			end.Reason = t.Ended()
		case <-over.C:
			end.Reason = "its time is over"
		case <-ctx.Done():
			s.failed = ctx.Err()
		}
		var entries []sinks.TapEntry
		entries, end.TapCounts = t.Take()
		for i := range entries {
			s.event("", &entries[i])
		}
		if s.failed != nil {
			end.Reason = "its reader is gone, or takes nothing"
		}
	}
	s.event(tapEnds, end)
	s.flush()
	return end
}

// event writes one event. Nothing that is in it steers a terminal.
func (s *stream) event(name string, data any) {
	var b strings.Builder
	if name != "" {
		b.WriteString("event: " + name + "\n")
	}
	b.WriteString("data: ")
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		s.failed = fmt.Errorf("BUG: %w", err)
		return
	}
	s.write(untrusted.EscapeJSON(b.String()) + "\n")
}

func (s *stream) write(text string) {
	if s.failed != nil {
		return
	}
	// In place of the listener's, which is for a reply that has an end.
	_ = s.control.SetWriteDeadline(time.Now().Add(tapWriteTimeout)) // not supported by a test's recorder
	_, s.failed = s.w.Write([]byte(text))
}

func (s *stream) flush() {
	if s.failed == nil {
		s.failed = s.control.Flush()
	}
}
