package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"twinegress/endpoints"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// Report is the state of all copies as one of them knows it, as `GET …/fleet`
// shows it. The sums are over the copies that are not stale: a copy that is gone has
// left what it counted, and one that was started again counts from 0.
type Report struct {
	At        time.Time           `json:"at"`
	Notice    string              `json:"notice" doc:"why the other copies are not known, or not as they are now; empty if they are"`
	Copies    []Copy              `json:"copies"`
	Ingest    IngestSums          `json:"ingest"`
	States    map[sinks.State]int `json:"states" doc:"how many endpoints there are by their worst state"`
	Endpoints []EndpointSums      `json:"endpoints"`
	Troubles  []Trouble           `json:"troubles" doc:"what is wrong, the worst first; empty if nothing is"`

	blind   bool // this copy doesn't see the others, though it should
	omitted int  // entries of endpoints that this copy doesn't have, of which there are too many
}

// Copy is a copy, and what it said last.
type Copy struct {
	ID          string                `json:"id" doc:"of this process: another one after each start"`
	Instance    string                `json:"instance"`
	Version     string                `json:"version"`
	StartedAt   time.Time             `json:"startedAt"`
	SaidAt      time.Time             `json:"saidAt" doc:"by its own clock"`
	AgeSeconds  float64               `json:"ageSeconds" doc:"since its last word, by the clock of the copy that is asked"`
	Stale       bool                  `json:"stale" doc:"it has not been heard of for some heartbeats, and is in no sum"`
	Self        bool                  `json:"self" doc:"the copy that is asked"`
	Ready       bool                  `json:"ready"`
	NotReady    []string              `json:"notReady" doc:"what it is not ready for"`
	Endpoints   int                   `json:"endpoints" doc:"how many it has"`
	FileRefused bool                  `json:"endpointsFileRefused" doc:"it can't take its endpoints file, and has the last good endpoints"`
	Ingest      pipeline.IngestStatus `json:"ingest"`

	set      uint64    // a hash of its endpoints
	setSince time.Time // by the clock of the copy that is asked
}

// IngestSums is the sum of what the live copies read.
type IngestSums struct {
	Records  int64                 `json:"records"`
	Events   uint64                `json:"events"`
	Unrouted uint64                `json:"unrouted"`
	Rejected map[string]uint64     `json:"rejected"`
	Lag      *int64                `json:"lag" doc:"null while one of them doesn't know its own"`
	Skipped  int64                 `json:"skippedBatches"`
	Letters  pipeline.LetterStatus `json:"deadLetters"`
	// Of the topic with the least, as far as a copy knows.
	Retention *float64 `json:"retentionSeconds" doc:"how long Kafka keeps an event; null: not known, or without end"`
}

// EndpointSums is an endpoint over all live copies: counts are sums, and the state is
// the worst, with that copy's words.
type EndpointSums struct {
	pipeline.EndpointStatus
	States map[sinks.State]int `json:"states" doc:"how many copies have it in which state"`
	Copies []string            `json:"copies" doc:"those that have it in the worst state"`
}

// builder adds copies to a report.
type builder struct {
	report    *Report
	endpoints map[[16]byte]*sum
	lagKnown  bool
	most      int // endpoints: this copy's own are added first, and others' beyond that are not
}

// sum is an endpoint while copies are added.
type sum struct {
	entry
	known  *identity // nil if this copy doesn't have it
	states map[sinks.State]int
	copies []string
}

// identity is what an endpoint is, as this copy knows it, and the last error of it that
// is over.
type identity struct {
	endpoint    endpoints.Endpoint
	host        string
	lastError   string
	lastErrorAt int64
}

// maxForeign bounds the endpoints of a report that this copy doesn't have: as many as
// there may be, if all of them were changed just now. Who may write to the topic could
// name millions.
const maxForeign = endpoints.MaxEndpoints

func newBuilder(now time.Time) *builder {
	return &builder{
		report: &Report{
			At: now.UTC(), Copies: []Copy{}, States: make(map[sinks.State]int), Endpoints: []EndpointSums{}, Troubles: []Trouble{},
			Ingest: IngestSums{Rejected: make(map[string]uint64), Letters: pipeline.LetterStatus{GivenUp: make(map[string]uint64)}},
		},
		endpoints: make(map[[16]byte]*sum),
		lagKnown:  true,
		most:      maxForeign,
	}
}

func copyFrom(id string, h head, heardAt, setSince, now time.Time) Copy {
	c := Copy{
		ID: id, Instance: h.Instance, Version: h.Version, StartedAt: h.StartedAt, SaidAt: h.At,
		AgeSeconds: seconds(max(0, now.Sub(heardAt))), Ready: h.Ready, NotReady: h.NotReady,
		Endpoints: h.Endpoints, FileRefused: h.FileRefused, Ingest: h.Ingest, set: h.Set, setSince: setSince,
	}
	if c.NotReady == nil {
		c.NotReady = []string{}
	}
	if c.Ingest.Positions == nil { // of a version before positions
		c.Ingest.Positions = []string{}
	}
	if c.Ingest.Groups == nil {
		c.Ingest.Groups = []string{}
	}
	return c
}

// addCopy adds a copy. What a stale one counted is in no sum.
func (b *builder) addCopy(c Copy) {
	b.report.Copies = append(b.report.Copies, c)
	if c.Stale {
		return
	}
	in := &b.report.Ingest
	in.Records += c.Ingest.Records
	in.Events += c.Ingest.Events
	in.Unrouted += c.Ingest.Unrouted
	in.Skipped += c.Ingest.Skipped
	in.Letters.Waiting += c.Ingest.Letters.Waiting
	in.Letters.Cut += c.Ingest.Letters.Cut
	in.Letters.LastError = cmp.Or(in.Letters.LastError, c.Ingest.Letters.LastError)
	for reason, n := range c.Ingest.Rejected {
		in.Rejected[reason] += n
	}
	for reason, n := range c.Ingest.Letters.GivenUp {
		in.Letters.GivenUp[reason] += n
	}
	if kept := c.Ingest.Retention; kept != nil && (in.Retention == nil || *kept < *in.Retention) {
		in.Retention = kept
	}
	if in.Lag == nil {
		in.Lag = new(int64)
	}
	if c.Ingest.Lag == nil {
		b.lagKnown = false
	} else {
		*in.Lag += *c.Ingest.Lag
	}
}

// addEntry adds what a live copy says of an endpoint. known is what this copy itself
// knows of it, else nil.
func (b *builder) addEntry(id string, e *entry, known *identity) {
	s := b.endpoints[e.id]
	if s == nil {
		if known != nil {
			b.most++
		} else if len(b.endpoints) >= b.most {
			b.report.omitted++
			return
		}
		s = &sum{entry: entry{id: e.id}, states: make(map[sinks.State]int, 2)}
		b.endpoints[e.id] = s
	}
	if known != nil {
		s.known = known
	}
	s.states[e.state]++
	s.routed += e.routed
	s.delivered += e.delivered
	s.pending += e.pending
	s.deferred += e.deferred
	s.catchUp.add(&e.catchUp)
	for i, n := range e.dropped {
		s.dropped[i] += n
	}
	for i, n := range e.windows {
		s.windows[i] += n
	}
	s.secondary = s.secondary || e.secondary
	s.holdsBack = s.holdsBack || e.holdsBack
	s.oldest = max(s.oldest, e.oldest)
	s.lastDelivered = max(s.lastDelivered, e.lastDelivered)
	s.failingSince = earlier(s.failingSince, e.failingSince)
	for _, partition := range e.partitions {
		if !slices.Contains(s.partitions, partition) {
			s.partitions = append(s.partitions, partition)
		}
	}
	order := compareStates(e.state, s.state)
	if order < 0 || s.copies == nil {
		s.state, s.copies = e.state, nil
		s.since, s.reason, s.backOffUntil, s.lastError, s.lastErrorAt = e.since, "", 0, "", 0
		order = 0
	}
	if order > 0 {
		// A key that is refused, or slowness, has a reason in a good state.
		s.reason = cmp.Or(s.reason, e.reason)
		return
	}
	s.copies = append(s.copies, id)
	s.since = earlier(s.since, e.since)
	s.reason = cmp.Or(s.reason, e.reason)
	s.backOffUntil = max(s.backOffUntil, e.backOffUntil)
	if e.lastErrorAt >= s.lastErrorAt && (e.lastError != "" || s.lastError == "") {
		s.lastError, s.lastErrorAt = e.lastError, e.lastErrorAt
	}
}

// earlier returns the earlier one of two times of which each may be none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// endpoint returns the sum as it is shown.
func (s *sum) endpoint() EndpointSums {
	e := EndpointSums{States: s.states, Copies: s.copies}
	e.ID, e.EventTypes = uuid.UUID(s.id).String(), []string{}
	e.State, e.Reason, e.LastError, e.LastErrorAt = s.state, s.reason, s.lastError, timeOf(s.lastErrorAt)
	if k := s.known; k != nil {
		e.Name, e.Type, e.Host, e.Path, e.EventTypes = k.endpoint.Name, string(k.endpoint.Type), k.host, k.endpoint.Path, k.endpoint.EventTypes
		e.Recovery, e.Enabled = pipeline.RecoveryOf(&k.endpoint), new(!k.endpoint.Disabled())
		if e.LastError == "" && s.lastErrorAt == k.lastErrorAt {
			e.LastError = k.lastError
		}
	}
	if since := timeOf(s.since); since != nil {
		e.StateSince = *since
	}
	e.Routed, e.Delivered, e.Deferred, e.Pending, e.HoldsBack = s.routed, s.delivered, s.deferred, int(s.pending), s.holdsBack
	e.CatchUp = s.catchUp.shown()
	e.BackOffUntil, e.FailingSince, e.LastDeliveredAt = timeOf(s.backOffUntil), timeOf(s.failingSince), timeOf(s.lastDelivered)
	e.OldestPending = seconds(time.Duration(s.oldest) * time.Millisecond)
	slices.Sort(s.partitions)
	e.PartitionsBackingOff = append([]int{}, s.partitions...)
	w := &s.windows
	e.Windows = pipeline.Windows{
		Minute:  pipeline.WindowCounts{Routed: w[0], Delivered: w[1], Dropped: w[2]},
		Quarter: pipeline.WindowCounts{Routed: w[3], Delivered: w[4], Dropped: w[5]},
		Day:     pipeline.WindowCounts{Routed: w[6], Delivered: w[7], Dropped: w[8]},
	}
	e.Key = sinks.Primary.String()
	if s.secondary {
		e.Key = sinks.Secondary.String()
	}
	e.Dropped = make(map[string]uint64, len(reasons))
	for i, n := range s.dropped {
		switch {
		case i < len(reasons):
			e.Dropped[reasons[i]] = n
		case n > 0:
			e.Dropped["other"] += n // of a later version
		}
	}
	return e
}

// build returns the report.
func (b *builder) build() *Report {
	r := b.report
	if !b.lagKnown {
		r.Ingest.Lag = nil
	}
	r.Endpoints = make([]EndpointSums, 0, len(b.endpoints))
	for _, s := range b.endpoints {
		r.Endpoints = append(r.Endpoints, s.endpoint())
		r.States[s.state]++
	}
	slices.SortFunc(r.Endpoints, func(a, b EndpointSums) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(r.Copies, func(a, b Copy) int {
		return cmp.Or(strings.Compare(a.Instance, b.Instance), a.StartedAt.Compare(b.StartedAt), strings.Compare(a.ID, b.ID))
	})
	r.Troubles = troubles(r)
	return r
}
