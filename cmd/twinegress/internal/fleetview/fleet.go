// Package fleetview shows the fleet, as a server reports it, to a person: troubles,
// copies and endpoints, the worst first, and what goes on a second.
package fleetview

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// Fleet is the reply of GET …/fleet. It is not the server's own type: a server may be
// of another version, and what it doesn't say is unknown then, never 0 or false.
type Fleet struct {
	At        time.Time  `json:"at"`
	Notice    string     `json:"notice"`
	Copies    []Copy     `json:"copies"`
	Ingest    Ingest     `json:"ingest"`
	Endpoints []Endpoint `json:"endpoints"`
	Troubles  []Trouble  `json:"troubles"`
}

// Copy is a copy, and what it said last.
type Copy struct {
	ID         string     `json:"id"`
	Instance   string     `json:"instance"`
	Version    string     `json:"version"`
	StartedAt  time.Time  `json:"startedAt"`
	AgeSeconds float64    `json:"ageSeconds"`
	Stale      bool       `json:"stale"`
	Self       bool       `json:"self"`
	Ready      *bool      `json:"ready"`
	NotReady   []string   `json:"notReady"`
	Ingest     CopyIngest `json:"ingest"`
}

// Ingest is what a copy, or the fleet, has read.
type Ingest struct {
	Records  int64             `json:"records"`
	Events   uint64            `json:"events"`
	Unrouted uint64            `json:"unrouted"`
	Rejected map[string]uint64 `json:"rejected"`
	Lag      *int64            `json:"lag"`
}

// CopyIngest is what a copy has read, and from where.
type CopyIngest struct {
	Ingest

	Partitions        []int32 `json:"partitions"`
	WaitsForEndpoints bool    `json:"waitsForEndpoints"`
}

// Endpoint is an endpoint's sums over all copies, and its worst state.
type Endpoint struct {
	ID              string            `json:"id"`
	Name            string            `json:"name"`
	Type            string            `json:"type"`
	Host            string            `json:"host"`
	Path            string            `json:"path"`
	EventTypes      []string          `json:"eventTypes"`
	State           string            `json:"state"`
	StateSince      time.Time         `json:"stateSince"`
	FailingSince    *time.Time        `json:"failingSince"`
	Reason          string            `json:"reason"`
	Routed          uint64            `json:"routed"`
	Delivered       uint64            `json:"delivered"`
	Dropped         map[string]uint64 `json:"dropped"`
	Deferred        uint64            `json:"deferred"`
	Pending         int64             `json:"pending"`
	OldestPending   float64           `json:"oldestPendingSeconds"`
	LastDeliveredAt *time.Time        `json:"lastDeliveredAt"`
	Windows         map[string]Window `json:"windows"`
	Key             string            `json:"key"`
	BackOffUntil    *time.Time        `json:"backOffUntil"`
	LastError       string            `json:"lastError"`
	HoldsBack       bool              `json:"holdsBack"`
	States          map[string]int    `json:"states"`

	Backlog          int64      `json:"backlog"`
	BehindSince      *time.Time `json:"behindSince"`
	BacklogOldestAt  *time.Time `json:"backlogOldestAt"`
	CatchUpPerSecond *float64   `json:"catchUpPerSecond"`
	CaughtUpAt       *time.Time `json:"caughtUpAt"`
	FallsBehind      bool       `json:"fallsBehind"`
}

// Window is what was counted in some time up to now.
type Window struct {
	Delivered uint64 `json:"delivered"`
	Dropped   uint64 `json:"dropped"`
}

// Trouble is something that is wrong, in words.
type Trouble struct {
	Severity string     `json:"severity"`
	What     string     `json:"what"`
	Endpoint string     `json:"endpoint"`
	Name     string     `json:"name"`
	Copies   []string   `json:"copies"`
	Since    *time.Time `json:"since"`
	Action   string     `json:"action"`
	Runbook  string     `json:"runbook"`
}

const critical = "critical" // severity of a trouble

// OfStatus returns the fleet that one copy is, from its reply of GET …/status: of a
// server that has no fleet.
func OfStatus(body []byte, now time.Time) (*Fleet, error) {
	var one struct {
		Copy
		Endpoints []Endpoint `json:"endpoints"`
	}
	if err := json.Unmarshal(body, &one); err != nil {
		return nil, err
	}
	one.Self = true
	f := &Fleet{
		At: now, Copies: []Copy{one.Copy}, Ingest: one.Copy.Ingest.Ingest, Endpoints: one.Endpoints,
		Notice: "the server has no fleet: this is the copy that was asked, and no other",
	}
	if one.Ready != nil && !*one.Ready {
		f.Troubles = append(f.Troubles, Trouble{Severity: critical, What: "it is not ready: " + strings.Join(one.NotReady, "; ")})
	}
	for i := range f.Endpoints {
		if e := &f.Endpoints[i]; e.rank() < rank("behind") || e.FallsBehind {
			f.Troubles = append(f.Troubles, Trouble{
				Severity: "warning", Endpoint: e.ID, Name: e.ShownName(), What: e.Type + " " + e.Path + " is " + e.State + ": " + e.LastError,
			})
		}
	}
	return f, nil
}

// states are the states of an endpoint, the worst first.
var states = []string{"backing_off", "probing", "degraded", "throttled", "behind", "provisioning", "deleting", "stopped", "ready"}

// rank returns the place of a state among all. One of a later version is no good
// news.
func rank(state string) int {
	if i := slices.Index(states, state); i >= 0 {
		return i
	}
	return slices.Index(states, "throttled")
}

func (e *Endpoint) rank() int { return rank(e.State) }

// ShownName is the name, or else the beginning of the id, which commands take as well.
func (e *Endpoint) ShownName() string {
	if e.Name != "" {
		return e.Name
	}
	return e.ID[:min(len(e.ID), 8)]
}

func (e *Endpoint) dropped() (n uint64) {
	for _, of := range e.Dropped {
		n += of
	}
	return n
}

// Live returns the ids of the copies whose counts are in the sums.
func (f *Fleet) live() (ids []string) {
	for _, c := range f.Copies {
		if !c.Stale {
			ids = append(ids, c.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// up returns for how long the counts in the sums have been taken; 0 if that is not known.
func (f *Fleet) up() (d time.Duration) {
	for i := range f.Copies {
		if c := &f.Copies[i]; !c.Stale && !c.StartedAt.IsZero() {
			d = max(d, f.At.Sub(c.StartedAt))
		}
	}
	return d
}

// sums are the counts over all endpoints.
type sums struct {
	routed, delivered, dropped, deferred uint64
	pending                              int64
	reasons                              map[string]uint64
}

func (f *Fleet) sums() sums {
	s := sums{reasons: make(map[string]uint64)}
	for i := range f.Endpoints {
		e := &f.Endpoints[i]
		s.routed += e.Routed
		s.delivered += e.Delivered
		s.dropped += e.dropped()
		s.deferred += e.Deferred
		s.pending += e.Pending
		for reason, n := range e.Dropped {
			s.reasons[reason] += n
		}
	}
	return s
}

// inOrder returns the keys of counts that are not 0.
func inOrder(counts map[string]uint64) []string {
	return slices.Sorted(maps.Keys(maps.Collect(func(yield func(string, uint64) bool) {
		for k, n := range counts {
			if n > 0 && !yield(k, n) {
				return
			}
		}
	})))
}
