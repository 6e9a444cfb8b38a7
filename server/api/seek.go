package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/untrusted"
)

const (
	// previewTimeout bounds what a seek asks of Kafka.
	previewTimeout = 10 * time.Second
	// seekSettles is how long a seek that was ordered counts as under way, even if no
	// copy reports one: they report with a delay.
	seekSettles = 5 * time.Second
)

// Positions is what is known of positions in the ingest topics. It is an interface
// so that a test can put an endpoint anywhere.
type Positions interface {
	// Preview returns what a seek to Earliest, Latest or a time is about, of all
	// partitions of the ingest topics together.
	Preview(ctx context.Context, to string) (Preview, error)
	// Backlog returns how many offsets an endpoint is behind, and reports whether a
	// seek of it is under way: it was ordered, and the endpoint hasn't caught up
	// since. Both are of the fleet, as far as this copy knows it.
	Backlog(id string) (offsets int64, seeking bool)
}

// Preview is what a seek is about.
type Preview struct {
	Offsets int64     // from there to the ends of the partitions
	From    time.Time // when the first of them was appended; zero: there is none
	Reaches time.Time // when the oldest that Kafka still has was appended; zero: it has none
}

// SeekRequest is the body of a seek.
type SeekRequest struct {
	To string `json:"to" doc:"earliest (everything that Kafka still has); a time, such as 2026-01-31T08:00:00Z, or how long ago, such as 90m; latest (what came before it is skipped); cancel (back to where the endpoint was before the seek that is under way)"`
}

// Seek is the reply.
type Seek struct {
	ID       string     `json:"id" format:"uuid"`
	Name     string     `json:"name"`
	Type     string     `json:"type"`
	Host     string     `json:"host"`
	Path     string     `json:"path"`
	SeekTo   string     `json:"seekTo" doc:"earliest, latest, cancel or a time, in UTC"`
	SeekAt   string     `json:"seekAt" doc:"When it was ordered; empty with dryRun"`
	DryRun   bool       `json:"dryRun" doc:"Nothing was changed"`
	Offsets  *int64     `json:"offsets" doc:"How many offsets it is about, of all partitions of the ingest topics: from there to their ends, to be read again; with latest, those that are skipped. An offset is an event, or an array of them, of any type. null: not known, with cancel"`
	FromAt   *time.Time `json:"fromAt" doc:"When the first of them was appended to Kafka; null: there is none, or it isn't known"`
	OldestAt *time.Time `json:"oldestAt" doc:"How far Kafka reaches back: when the oldest record that it still has was appended; null: there is none, or it isn't known"`
	Notice   string     `json:"notice" doc:"What isn't as one may think; empty: nothing"`
}

// SeekQuery is the query of a seek. It is read in Resolve: a parameter that was
// misspelled, and ignored, would make a seek of what was to be tried.
type SeekQuery struct{ dryRun bool }

// Resolve reads the query; huma calls it.
func (q *SeekQuery) Resolve(ctx huma.Context) []error {
	asked := ctx.URL()
	var found mistakes
	for name, values := range asked.Query() {
		dry, err := strconv.ParseBool(values[len(values)-1])
		switch {
		case !strings.EqualFold(name, "dryRun"):
			found.add(echo(name), "unknown parameter; known is dryRun")
		case err != nil:
			found.add("dryRun", "must be true or false")
		default:
			q.dryRun = dry
		}
	}
	if len(found.first) == 0 {
		return nil
	}
	return []error{failureWith(http.StatusBadRequest, "the query is not valid", found.details())}
}

func (o *operations) registerSeek(api huma.API) {
	op := huma.Operation{
		OperationID: "seekEndpoint", Method: http.MethodPost, Path: Base + "/endpoints/{id}/seek", Tags: tags,
		Summary: "Send an endpoint to another place in Kafka",
		Description: "It gets the events from there on, in order, up to those that come now; other endpoints don't wait for it. " +
			"The reply says how many offsets that is about; `dryRun` says it and changes nothing. Every copy does it for its own partitions, " +
			"once, within a few seconds; the status has the backlog. A 409 while another seek of the endpoint is under way: cancel it first.",
		Parameters: []*huma.Param{{
			Name: "dryRun", In: "query", Description: "true: say what it is about, and change nothing", Schema: &huma.Schema{Type: huma.TypeBoolean},
		}},
		DefaultStatus: http.StatusAccepted, Errors: []int{400, 401, 403, 404, 408, 409, 413, 415, 429, 503},
		Responses: map[string]*huma.Response{"200": {Description: "With dryRun"}},
	}
	registerWithBody(api, op, bodyOf[SeekRequest](map[string]*huma.Example{
		"a time":     {Value: SeekRequest{"2026-01-31T08:00:00Z"}},
		"everything": {Value: SeekRequest{endpoints.Earliest}},
		"skip":       {Value: SeekRequest{endpoints.Latest}},
		"cancel":     {Value: SeekRequest{endpoints.Cancel}},
	}), o.seek)
	op.Responses["200"].Content = op.Responses["202"].Content
}

type sought struct {
	Status int
	ETag   string `header:"ETag"`
	Body   Seek
}

func (o *operations) seek(ctx context.Context, in *struct {
	ByID
	SeekQuery
	JSONBody
},
) (*sought, error) {
	e, err := o.stored(in.ID)
	if err != nil {
		return nil, err
	}
	to, err := seekTarget(in.RawBody, time.Now())
	if err != nil {
		return nil, err
	}
	if o.Positions == nil {
		return nil, failure(http.StatusServiceUnavailable, "this copy knows no positions of endpoints").with("Retry-After", "5")
	}
	if err := o.maySeek(e, to, time.Now()); err != nil {
		return nil, err
	}
	out := &sought{Status: http.StatusOK, Body: Seek{SeekTo: to, DryRun: in.dryRun}}
	if err := o.preview(ctx, &out.Body, e.ID); err != nil {
		return nil, err
	}
	if !in.dryRun {
		if e, err = o.orderSeek(ctx, e.ID, to); err != nil {
			return nil, err
		}
		out.Status, out.Body.SeekAt = http.StatusAccepted, e.SeekAt
	}
	out.Body.ID, out.Body.Name, out.Body.Type, out.Body.Host, out.Body.Path = e.ID, e.Name, string(e.Type), e.Host(), e.Path
	_, state := o.resource(e)
	out.ETag = etag(e, state)
	return out, nil
}

// seekTarget returns where a body leads to.
func seekTarget(body []byte, now time.Time) (string, error) {
	var in SeekRequest
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	bad := dec.Decode(&in) != nil
	if _, err := dec.Token(); bad || !errors.Is(err, io.EOF) { // dec.More takes a bracket too many for the end
		// Without the decoder's error, which may quote the body.
		return "", failure(http.StatusBadRequest, `the body must be {"to": …} in JSON, and nothing else`)
	}
	to, err := endpoints.ParseSeek(strings.TrimSpace(in.To), now)
	if err != nil {
		return "", failureWith(http.StatusBadRequest, "the seek is not valid", []Detail{{Field: "to", Message: err.Error()}})
	}
	return to, nil
}

// maySeek returns the reply to a seek that another one, or none, stands in the way of.
func (o *operations) maySeek(e endpoints.Endpoint, to string, now time.Time) error {
	none := e.SeekTo == "" || e.SeekTo == endpoints.Cancel
	switch {
	case to == endpoints.Cancel && none:
		return failure(http.StatusConflict, "no seek of the endpoint was ordered that could be cancelled")
	case to == endpoints.Cancel || none:
		return nil
	}
	_, seeking := o.Positions.Backlog(e.ID)
	ordered, err := time.Parse(time.RFC3339Nano, e.SeekAt)
	if !seeking && (err != nil || now.Sub(ordered) >= seekSettles) {
		return nil
	}
	when := ""
	if err == nil && ordered.Unix() > 0 { // of an entry of the endpoints file it isn't known
		when = ", ordered at " + e.SeekAt
	}
	return failure(http.StatusConflict, fmt.Sprintf("a seek of the endpoint is under way, to %s%s: cancel it, or wait until the endpoint has caught up", e.SeekTo, when))
}

// preview adds what a seek is about.
func (o *operations) preview(ctx context.Context, s *Seek, id string) error {
	if s.SeekTo == endpoints.Cancel {
		return nil // each copy knows where its partitions were
	}
	ctx, cancel := context.WithTimeout(ctx, previewTimeout)
	defer cancel()
	p, err := o.Positions.Preview(ctx, s.SeekTo)
	if err != nil {
		return failure(http.StatusServiceUnavailable, "Kafka doesn't say what the seek is about, and nothing has changed: "+untrusted.Text(err.Error())).with("Retry-After", "5")
	}
	s.Offsets, s.FromAt, s.OldestAt = &p.Offsets, notZero(p.From), notZero(p.Reaches)
	at, err := time.Parse(time.RFC3339Nano, s.SeekTo)
	switch {
	case s.SeekTo == endpoints.Latest:
		p.Offsets, _ = o.Positions.Backlog(id)
		s.FromAt = nil
		if p.Offsets == 0 {
			s.Notice = "the endpoint isn't behind: nothing is skipped"
		}
	case p.Offsets == 0:
		s.Notice = "Kafka has nothing from there on"
	case err == nil && at.Before(p.Reaches):
		s.Notice = "Kafka doesn't reach back that far: what came before " + p.Reaches.UTC().Format(time.RFC3339) + " is no longer there"
	}
	return nil
}

func notZero(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

// orderSeek stores a seek, and returns the endpoint as stored.
func (o *operations) orderSeek(ctx context.Context, id, to string) (endpoints.Endpoint, error) {
	var after endpoints.Endpoint
	_, set, err := o.changeOne(ctx, id, nil, func(set []endpoints.Endpoint, i int) ([]endpoints.Endpoint, error) {
		now := time.Now()
		// Once more: another request may have ordered one meanwhile.
		if err := o.maySeek(set[i], to, now); err != nil {
			return nil, err
		}
		set[i] = set[i].Seek(to, now)
		after = set[i]
		return set, nil
	})
	if err != nil {
		return after, err
	}
	after = asStored(set, after)
	o.audit(ctx, "endpoint's seek ordered", after, nil, zap.String("seekTo", after.SeekTo))
	return after, nil
}
