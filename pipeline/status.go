package pipeline

import (
	"cmp"
	"slices"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
)

// Status is the state of this copy, as `GET …/status` shows it. Counts are
// since start.
type Status struct {
	Version   string           `json:"version"`
	Instance  string           `json:"instance"`
	StartedAt time.Time        `json:"startedAt"`
	Ready     bool             `json:"ready" doc:"as /readyz of this copy"`
	NotReady  []string         `json:"notReady" doc:"what it lacks to move events, in words"`
	Ingest    IngestStatus     `json:"ingest"`
	Endpoints []EndpointStatus `json:"endpoints" nullable:"true" doc:"null: they are not in force yet, and notReady says why"`
}

// IngestStatus counts records, and the events in them that were classified.
type IngestStatus struct {
	Records    int64             `json:"records"`
	Events     uint64            `json:"events"`
	Unrouted   uint64            `json:"unrouted" doc:"events that no endpoint takes, by its event types and its filter"`
	Rejected   map[string]uint64 `json:"rejected" doc:"set aside in the dead-letter topic, by reason"`
	Lag        *int64            `json:"lag" doc:"offsets that are not committed yet, up to the end of this copy's partitions; null while that is not known"`
	LagAt      *time.Time        `json:"lagAt" doc:"when the brokers said where the partitions end"`
	Member     bool              `json:"member" doc:"of the consumer group"`
	HeardAt    *time.Time        `json:"brokersHeardAt" doc:"when a broker answered last; null: never"`
	Waits      bool              `json:"waitsForEndpoints" doc:"nothing is read since there is no endpoint: ingest.waitForEndpoints"`
	Partitions []int32           `json:"partitions"`
	Stalled    []int32           `json:"stalled" doc:"partitions that are not read on until more of what was read has its outcome"`
	Skipped    int64             `json:"skippedBatches" doc:"passed over since they take more memory than ingest.limits.batchBytes; the dead letters have their offsets"`
	Letters    LetterStatus      `json:"deadLetters"`
	Sample     []UnroutedEvent   `json:"unroutedSample" doc:"of unrouted the last few, oldest first"`
	Retention  *float64          `json:"retentionSeconds" doc:"how long Kafka keeps an event, of the topic with the least; null: not known, or without end"`
	Positions  []string          `json:"positions" doc:"what is wrong with how positions of endpoints that are behind are kept, in words; empty if nothing is"`
	Groups     []string          `json:"groupNotes" doc:"why Kafka's tools don't see all that they could of endpoints that are behind, in words: it keeps nobody from catching up"`
}

// CaughtUp reports whether it is known that there is no lag.
func (i IngestStatus) CaughtUp() bool { return i.Lag != nil && *i.Lag == 0 }

// LetterStatus is what became of the dead letters. Every record and event that was
// set aside is in the dead-letter topic, waits, or was given up.
type LetterStatus struct {
	Waiting   int64             `json:"waiting" doc:"not stored yet: their partitions can't commit past them"`
	Cut       uint64            `json:"cut" doc:"stored in part only, since the topic refuses the whole"`
	GivenUp   map[string]uint64 `json:"givenUp" doc:"can't be stored in any form, by why: what they were for is lost"`
	LastError string            `json:"lastError" doc:"of the last letter that was refused"`
}

// EndpointStatus is one endpoint. At any moment
// routed = delivered + the sum of dropped + deferred + pending. Its fields are the API's.
type EndpointStatus struct {
	ID                   string            `json:"id"`
	Name                 string            `json:"name"`
	Type                 string            `json:"type"`
	Host                 string            `json:"host"`
	Path                 string            `json:"path"`
	EventTypes           []string          `json:"eventTypes"`
	Recovery             string            `json:"recovery" doc:"drop or catchUp; empty if the endpoint is not known here"`
	Enabled              *bool             `json:"enabled" doc:"false: it is paused; null if the endpoint is not known here"`
	State                sinks.State       `json:"state" enum:"provisioning,ready,degraded,throttled,backing_off,probing,behind,stopped,deleting"`
	StateSince           time.Time         `json:"stateSince"`
	Reason               string            `json:"reason" doc:"what is wrong now, in one word; empty if nothing is"`
	Routed               uint64            `json:"routed"`
	Delivered            uint64            `json:"delivered"`
	Dropped              map[string]uint64 `json:"dropped"`
	Deferred             uint64            `json:"deferred" doc:"left the shared reading for later; routed anew when they are caught up on"`
	Pending              int               `json:"pending"`
	OldestPending        float64           `json:"oldestPendingSeconds" doc:"for how long the oldest event waits for its outcome"`
	LastDeliveredAt      *time.Time        `json:"lastDeliveredAt"`
	Windows              Windows           `json:"windows" doc:"the same counts of the last minute, quarter of an hour and day, each up to a fifteenth less"`
	Key                  string            `json:"key" enum:"primary,secondary"`
	BackOffUntil         *time.Time        `json:"backOffUntil" doc:"if only partitions back off: of the one that is tried next, and so is lastError"`
	PartitionsBackingOff []int             `json:"partitionsBackingOff" doc:"the event hub's partitions that back off by themselves"`
	LastError            string            `json:"lastError" doc:"what is wrong, or was last"`
	LastErrorAt          *time.Time        `json:"lastErrorAt"`
	FailingSince         *time.Time        `json:"failingSince" doc:"since when it backs off, over all tries, or refuses one event after the other, or holds back, or the primary key is refused"`
	HoldsBack            bool              `json:"holdsBack" doc:"others wait for this endpoint: the intake for room in its lanes, or in what may be in flight, half of which waits here; or, without recovery: catchUp, what may be committed, for an event that has waited here for 5 s"`

	CatchUp
}

// Windows are counts of some time up to now. They are of when it happened, so the
// equation doesn't hold in them.
type Windows struct {
	Minute  WindowCounts `json:"1m"`
	Quarter WindowCounts `json:"15m"`
	Day     WindowCounts `json:"24h"`
}

// WindowCounts are those of one window.
type WindowCounts struct {
	Routed    uint64 `json:"routed"`
	Delivered uint64 `json:"delivered"`
	Dropped   uint64 `json:"dropped"`
}

// inputReasons set input aside before it is routed; outcomeReasons drop an
// event at an endpoint.
var (
	inputReasons   = []event.Reason{event.Undecodable, event.UnknownType}
	outcomeReasons = []event.Reason{
		event.Backoff, event.Unreachable, event.Unauthorized, event.Throttled,
		event.Rejected, event.TooLarge, event.Overflow, event.Removed, event.Stopped, event.Expired,
	}
)

// Status returns the state of this moment.
func (p *Pipeline) Status() Status {
	st := p.Self()
	st.Endpoints = nil
	if p.intake.Load() != nil {
		st.Endpoints = p.shown()
	}
	return st
}

// shown returns the state of the endpoints in force, and of those that drain.
func (p *Pipeline) shown() []EndpointStatus {
	all := []EndpointStatus{}
	p.Briefs(func(b *sinks.Brief, c CatchUp) { all = append(all, statusOf(b, c)) })
	drained := p.router.drained()
	if len(drained) == 0 {
		return all
	}
	known := make(map[string]bool, len(all))
	for i := range all {
		known[all[i].ID] = true
	}
	for _, s := range drained {
		if e := statusOf(p.brief(s)); !known[e.ID] { // else its id is in use again
			known[e.ID] = true
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Self returns the Status without the endpoints.
func (p *Pipeline) Self() Status {
	st := Status{
		Version: p.options.Version, Instance: p.options.Instance, StartedAt: p.started.UTC(),
		NotReady: append([]string{}, p.NotReady()...), Ingest: p.Ingest(), Endpoints: []EndpointStatus{},
	}
	st.Ready = len(st.NotReady) == 0
	return st
}

// Ingest returns the part of Status that is before the endpoints.
func (p *Pipeline) Ingest() IngestStatus {
	source, keeping := p.consumer(), p.keeping()
	in := IngestStatus{
		Records: source.Records, Lag: source.Lag, Partitions: source.Partitions,
		LagAt: known(source.LagAt), Member: source.Member, HeardAt: known(source.HeardAt), Waits: source.Held,
		Stalled: source.Stalled, Skipped: source.Skipped,
		Unrouted: p.counts.unrouted.Load(), Rejected: make(map[string]uint64), Letters: p.letterStatus(), Sample: p.counts.sample.get(),
		Retention: leastRetention(p.retention()), Positions: append([]string{}, keeping.Notes...),
		Groups: append([]string{}, keeping.Groups...),
	}
	for t := range p.counts.events {
		in.Events += p.counts.events[t].Load()
	}
	for _, r := range inputReasons {
		in.Rejected[r.String()] = p.counts.rejected[r].Load()
	}
	return in
}

// known returns a time, or nil for none.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (p *Pipeline) letterStatus() LetterStatus {
	s := p.deadLetters()
	l := LetterStatus{Waiting: s.Waiting, Cut: s.Cut, LastError: s.LastError, GivenUp: make(map[string]uint64)}
	for _, r := range deadletter.GivenUpReasons {
		l.GivenUp[r.String()] = s.GivenUp[r]
	}
	return l
}

func statusOf(snap *sinks.Brief, c CatchUp) EndpointStatus {
	e := EndpointStatus{
		ID: snap.Endpoint.ID, Name: snap.Endpoint.Name,
		Type: string(snap.Endpoint.Type), Host: snap.Host, Path: snap.Endpoint.Path,
		EventTypes: snap.Endpoint.EventTypes, Recovery: RecoveryOf(&snap.Endpoint), Enabled: new(!snap.Endpoint.Disabled()), State: snap.State, StateSince: snap.Since.UTC(), Reason: snap.Reason,
		Routed: snap.Routed, Delivered: snap.Delivered, Deferred: snap.Deferred, Pending: snap.Pending, CatchUp: c,
		Dropped: make(map[string]uint64, len(outcomeReasons)),
		Key:     snap.Key.String(), LastError: snap.LastError, HoldsBack: snap.HoldsBack,
		OldestPending: snap.OldestPending.Seconds(), LastDeliveredAt: given(snap.LastDeliveredAt),
		Windows:     Windows{WindowCounts(snap.Windows.Minute), WindowCounts(snap.Windows.Quarter), WindowCounts(snap.Windows.Day)},
		LastErrorAt: given(snap.LastErrorAt), BackOffUntil: given(snap.BackOffUntil), FailingSince: given(snap.FailingSince),
		PartitionsBackingOff: append([]int{}, snap.PartitionsBackingOff...),
	}
	for _, r := range outcomeReasons {
		e.Dropped[r.String()] = snap.Dropped[r]
	}
	return e
}

// RecoveryOf returns what becomes of events that an endpoint can't take, the default as
// well.
func RecoveryOf(e *endpoints.Endpoint) string {
	return string(cmp.Or(e.Recovery, endpoints.RecoveryDrop))
}

// given returns a time for JSON: nil if there is none.
func given(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

// EndpointStatus returns the state of one endpoint, also of a removed one while
// it drains; false if there is none with that id.
func (p *Pipeline) EndpointStatus(id string) (EndpointStatus, bool) {
	s := p.router.sender(id)
	if s == nil {
		return EndpointStatus{}, false
	}
	return statusOf(p.brief(s)), true
}

// LogEntry is one change of an endpoint's state, or one failure with its repeats.
type LogEntry struct {
	At      time.Time   `json:"at" doc:"when it began, at first"`
	LastAt  time.Time   `json:"lastAt" doc:"when it last began or ended"`
	What    string      `json:"what" enum:"ready,backing_off,partition_backing_off,throttled,refused,key_refused,overflow,holds_back,changed,retried,behind,paused,resumed,deleting,stopped"`
	State   sinks.State `json:"state" doc:"the endpoint's state then"`
	Reason  string      `json:"reason"`
	Text    string      `json:"text" doc:"the service's words, of the first time"`
	Times   int         `json:"times" doc:"repeats within an hour of each other are one entry"`
	Events  uint64      `json:"events" doc:"dropped for it; of behind, those that it caught up on"`
	Seconds float64     `json:"seconds" doc:"for how long, all times together"`
	Ongoing bool        `json:"ongoing"`
	Copy    string      `json:"copy" doc:"the copy that says so, by its id in the fleet"`
}

// EndpointLog returns the last changes and failures of an endpoint on this copy, the
// newest last; false if nothing of it runs.
func (p *Pipeline) EndpointLog(id string) ([]LogEntry, bool) {
	s := p.router.sender(id)
	if s == nil {
		return nil, false
	}
	log := s.Log()
	entries := make([]LogEntry, len(log))
	for i, e := range log {
		entries[i] = LogEntry{
			At: e.At.UTC(), LastAt: e.LastAt.UTC(), What: e.What, State: e.State, Reason: e.Reason, Text: e.Text,
			Times: e.Times, Events: e.Events, Seconds: e.Lasted.Seconds(), Ongoing: e.Ongoing,
		}
	}
	return entries, true
}

// Health returns how an endpoint is doing; false if nothing of it runs.
func (p *Pipeline) Health(id string) (sinks.Health, bool) {
	s := p.router.sender(id)
	if s == nil {
		return sinks.Health{}, false
	}
	return p.holdsBack(s.Health()), true
}

// Retry ends an endpoint's back-off now, if it is in one, and has the primary key
// tried again, if that was refused. It returns the endpoint; false if none with that id is running.
func (p *Pipeline) Retry(id string) (endpoints.Endpoint, bool) {
	s := p.router.sender(id)
	if s == nil {
		return endpoints.Endpoint{}, false
	}
	s.Retry()
	return s.Endpoint(), true
}

// Snapshots returns every sender's, ordered by endpoint id. A removed endpoint
// is among them while it drains, unless its id is in use again.
func (p *Pipeline) Snapshots() []sinks.Snapshot {
	var snaps []sinks.Snapshot
	p.each(func(snap *sinks.Snapshot) { snaps = append(snaps, *snap) })
	slices.SortFunc(snaps, func(a, b sinks.Snapshot) int { return cmp.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	return snaps
}

// each calls f with one snapshot after the other: all of thousands at once are tens of
// megabytes. It returns the totals by endpoint type, those of endpoints that are no
// more included.
func (p *Pipeline) each(f func(*sinks.Snapshot)) totalsByType {
	senders, byType := p.router.all()
	ids := make(map[string]bool, len(senders))
	for _, s := range senders { // those that are removed come last
		snap := p.snapshot(s)
		byType.add(snap.Endpoint.Type, &snap.Counts)
		if id := snap.Endpoint.ID; !ids[id] {
			ids[id] = true
			f(&snap)
		}
	}
	return byType
}

// snapshot is a sender's. An endpoint also holds the others back where polling
// waits before any lane of it is full, since its events keep too much in flight.
func (p *Pipeline) snapshot(s *sinks.Sender) sinks.Snapshot {
	snap := s.Snapshot()
	snap.Health = p.holdsBack(snap.Health)
	return snap
}

func (p *Pipeline) holdsBack(h sinks.Health) sinks.Health {
	if in := p.intake.Load(); h.OverShare && in != nil && in.source.Full() {
		h.SetHoldsBack()
	}
	return h
}
