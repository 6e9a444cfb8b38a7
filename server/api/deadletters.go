package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/untrusted"
	"twinegress/pipeline/letters"
)

// DeadLetters is what was set aside. It is an interface as Pipeline is.
type DeadLetters interface {
	List(ctx context.Context, s letters.Selection, most int, b letters.Bounds) (letters.List, error)
	Count(ctx context.Context, s letters.Selection, b letters.Bounds) (letters.Count, error)
	Show(ctx context.Context, partition int32, offset int64, most int, b letters.Bounds) (*letters.Whole, error)
}

const (
	// maxReading is how many requests read the dead-letter topic at a time: each
	// unpacks up to twice ingest.limits.batchBytes.
	maxReading = 2
	// defaultLetters is how many letters a list has without $top.
	defaultLetters = 20
	// maxValue is how much of an event is in a reply, in bytes.
	maxValue = 1 << 20
)

// letterBounds are of what one request reads of the topic.
var letterBounds = letters.Bounds{Records: 200_000, Time: 10 * time.Second}

// deadLetters are the operations on dead letters.
type deadLetters struct {
	DeadLetters
	store   endpoints.Store
	reading *semaphore.Weighted
}

// The replies. The document has the names of these types.
type (
	// DeadLetterList is the reply of listDeadLetters.
	DeadLetterList struct{ letters.List }
	// DeadLetterCount is the reply of countDeadLetters.
	DeadLetterCount struct{ letters.Count }
	// DeadLetter is the reply of getDeadLetter.
	DeadLetter struct{ letters.Whole }
)

func registerDeadLetters(api huma.API, options Options) {
	o := &deadLetters{options.Letters, options.Store, semaphore.NewWeighted(maxReading)}
	group := []string{"dead letters"}
	huma.Register(api, huma.Operation{
		OperationID: "listDeadLetters", Method: http.MethodGet, Path: Base + "/deadletters", Tags: group,
		Summary:     "List dead letters",
		Description: "The newest first, of all copies: they are read from the dead-letter topic. A request reads 200,000 records at most, for 10 s: `cut` says if that was not all.",
		Parameters:  append(letterParameters(), topParameter()), Errors: []int{400, 401, 403, 429, 503},
	}, o.list)
	huma.Register(api, huma.Operation{
		OperationID: "countDeadLetters", Method: http.MethodGet, Path: Base + "/deadletters/count", Tags: group,
		Summary:     "Count dead letters by reason and endpoint",
		Description: "Of more than 200,000 records the newest of each partition are counted, or what can be read in 10 s: `cut` says so. `twinegress deadletters count` has no such bound.",
		Parameters:  letterParameters(), Errors: []int{400, 401, 403, 429, 503},
	}, o.count)
	huma.Register(api, huma.Operation{
		OperationID: "getDeadLetter", Method: http.MethodGet, Path: Base + "/deadletters/{partition}/{offset}", Tags: group,
		Summary:     "Show a dead letter with its event",
		Description: "Needs the right to see what is in events. Up to 1 MiB of the event is shown. To send letters again there is `twinegress replay`.",
		Errors:      []int{400, 401, 403, 404, 429, 503},
	}, o.show)
}

func letterParameters() []*huma.Param {
	moment := func(name, description string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: huma.TypeString, Format: "date-time"}}
	}
	return []*huma.Param{
		{Name: "endpoint", In: "query", Description: "Letters of this endpoint, by its id or its name", Schema: &huma.Schema{Type: huma.TypeString}},
		{Name: "reason", In: "query", Description: "Letters of one of these reasons: with commas, or repeated", Schema: someOf(event.Reasons())},
		moment("since", "Letters that were stored then or later; UTC unless it says otherwise"),
		moment("until", "Letters that were stored before then"),
	}
}

func topParameter() *huma.Param {
	one, most := 1.0, float64(letters.MaxListed)
	return &huma.Param{
		Name: "$top", In: "query", Description: "How many at most; 20 if it is not given",
		Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: &one, Maximum: &most},
	}
}

// letterQuery is the query of these operations, as selection is of a list's.
type letterQuery struct {
	letters.Selection
	endpoint string // id or name
	top      int
}

// Resolve reads the query, and returns all mistakes; huma calls it.
func (q *letterQuery) Resolve(ctx huma.Context) []error {
	q.top = defaultLetters
	var found mistakes
	wrong := found.add
	asked := ctx.URL()
	query, err := url.ParseQuery(asked.RawQuery)
	if err != nil { // it would be ignored otherwise
		wrong("", "has a ; or a %% that is not escaped: write %%3B, and %%25")
	}
	moment := func(name, value string) (at time.Time) {
		at, err := parseTime(value)
		if err != nil || at.Unix() < 0 {
			wrong(name, "must be a time such as 2026-01-31T08:00:00Z, 1970 or later")
		}
		return at
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		switch strings.ToLower(name) {
		case "endpoint":
			q.endpoint = values[0]
		case "reason":
			q.Reasons = choices(q.Reasons, "reason", values, event.Reasons(), wrong)
		case "since":
			q.Since = moment("since", values[0])
		case "until":
			q.Until = moment("until", values[0])
		case "$top":
			n, err := strconv.Atoi(values[0])
			if err != nil || n < 1 || n > letters.MaxListed {
				wrong("$top", "must be a whole number from 1 to %d", letters.MaxListed)
			}
			q.top = n
		default:
			wrong(echo(name), "unknown parameter; known are endpoint, reason, since, until, $top")
		}
	}
	if len(found.first) == 0 {
		return nil
	}
	return []error{failureWith(http.StatusBadRequest, "the query is not valid", found.details())}
}

func (o *deadLetters) list(ctx context.Context, in *letterQuery) (*struct{ Body DeadLetterList }, error) {
	s, release, err := o.begin(ctx, in)
	if err != nil {
		return nil, err
	}
	defer release()
	list, err := o.List(ctx, s, in.top, letterBounds)
	if err != nil {
		return nil, unreadable(err)
	}
	names := letters.NamesOf(o.store.Current())
	for i := range list.Letters {
		names.Complete(&list.Letters[i].Endpoint)
	}
	return &struct{ Body DeadLetterList }{DeadLetterList{list}}, nil
}

func (o *deadLetters) count(ctx context.Context, in *letterQuery) (*struct{ Body DeadLetterCount }, error) {
	s, release, err := o.begin(ctx, in)
	if err != nil {
		return nil, err
	}
	defer release()
	count, err := o.Count(ctx, s, letterBounds)
	if err != nil {
		return nil, unreadable(err)
	}
	names := letters.NamesOf(o.store.Current())
	for i := range count.Groups {
		names.Complete(&count.Groups[i].Endpoint)
	}
	return &struct{ Body DeadLetterCount }{DeadLetterCount{count}}, nil
}

func (o *deadLetters) show(ctx context.Context, in *struct {
	Partition int64 `path:"partition" minimum:"0" maximum:"2147483647" doc:"Of the dead-letter topic"`
	Offset    int64 `path:"offset" minimum:"0"`
},
) (*struct{ Body DeadLetter }, error) {
	if err := maySeeEvents(ctx); err != nil {
		return nil, err
	}
	release, err := o.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	letter, err := o.Show(ctx, int32(in.Partition), in.Offset, maxValue, letterBounds) //nolint:gosec // it has its maximum
	switch {
	case errors.Is(err, letters.ErrNone):
		return nil, failure(http.StatusNotFound, untrusted.Text(err.Error()))
	case err != nil:
		return nil, unreadable(err)
	}
	letters.NamesOf(o.store.Current()).Complete(&letter.Endpoint)
	return &struct{ Body DeadLetter }{DeadLetter{*letter}}, nil
}

// begin returns what a query selects, once there is room to read it.
func (o *deadLetters) begin(ctx context.Context, q *letterQuery) (letters.Selection, func(), error) {
	s := q.Selection
	if !s.Until.IsZero() && !s.Until.After(s.Since) {
		return s, nil, failureWith(http.StatusBadRequest, "the query is not valid", []Detail{{Field: "until", Message: "must be after since"}})
	}
	if q.endpoint != "" {
		id, err := o.resolve(q.endpoint)
		if err != nil {
			return s, nil, err
		}
		s.Endpoint = id
	}
	release, err := o.acquire(ctx)
	return s, release, err
}

// resolve returns the id of an endpoint. A UUID is taken as it is: letters of an
// endpoint outlive it.
func (o *deadLetters) resolve(idOrName string) (string, error) {
	if uuid.Validate(idOrName) == nil {
		return strings.ToLower(idOrName), nil
	}
	set := o.store.Current()
	i := slices.IndexFunc(set, func(e endpoints.Endpoint) bool { return e.Name == idOrName })
	if i < 0 {
		return "", failureWith(http.StatusBadRequest, "the query is not valid", []Detail{{Field: "endpoint", Message: "no endpoint has that id or name"}})
	}
	return set[i].ID, nil
}

// acquire blocks until fewer than maxReading requests read the topic.
func (o *deadLetters) acquire(ctx context.Context) (release func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	if !take(waiting, o.reading, 1) {
		return nil, overloaded()
	}
	return func() { o.reading.Release(1) }, nil
}

func unreadable(err error) error {
	return failure(http.StatusServiceUnavailable, "the dead-letter topic can't be read right now: "+untrusted.Text(err.Error())).with("Retry-After", "5")
}
