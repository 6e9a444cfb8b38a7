package replay

import (
	"cmp"
	"slices"

	"twinegress/sinks"
)

// Result is what a replay did. Letters = Delivered + RefusedAgain + the sum of
// Skipped + Undelivered.
type Result struct {
	Complete     bool             `json:"complete"`
	Letters      int64            `json:"letters"`      // read
	Delivered    uint64           `json:"delivered"`    //
	RefusedAgain uint64           `json:"refusedAgain"` // by a service that works: done with
	Skipped      Skipped          `json:"skipped"`      // not for us: done with
	Undelivered  uint64           `json:"undelivered"`  // not committed: the next replay's
	Remaining    int64            `json:"remaining"`    // not committed, those that weren't read included
	Endpoints    []EndpointResult `json:"endpoints"`
	Earlier      []EarlierResult  `json:"earlier,omitempty"` // who is done with Skipped.ReplayedBefore
}

// Skipped are letters that were read, but not sent, by the reason for it.
type Skipped struct {
	NoEndpoint      int64 `json:"noEndpoint"`      // input that could not be decoded or classified
	OtherEndpoint   int64 `json:"otherEndpoint"`   // than the one that was asked for
	OtherReason     int64 `json:"otherReason"`     // than those that were asked for
	UnknownEndpoint int64 `json:"unknownEndpoint"` // deleted since
	Cut             int64 `json:"cut"`             // not all of the event was stored
	Unrouted        int64 `json:"unrouted"`        // the endpoint doesn't take them, by its event types and its filter
	Unreadable      int64 `json:"unreadable"`      // no dead letters of ours
	ReplayedBefore  int64 `json:"replayedBefore"`  // an earlier replay is done with them: Result.Earlier
}

// Total returns the sum over the reasons.
func (s Skipped) Total() int64 {
	return s.NoEndpoint + s.OtherEndpoint + s.OtherReason + s.UnknownEndpoint + s.Cut + s.Unrouted + s.Unreadable + s.ReplayedBefore
}

func (s *Skipped) add(o Skipped) {
	s.NoEndpoint += o.NoEndpoint
	s.OtherEndpoint += o.OtherEndpoint
	s.OtherReason += o.OtherReason
	s.UnknownEndpoint += o.UnknownEndpoint
	s.Cut += o.Cut
	s.Unrouted += o.Unrouted
	s.Unreadable += o.Unreadable
	s.ReplayedBefore += o.ReplayedBefore
}

// EndpointResult is of one endpoint that letters were sent to.
type EndpointResult struct {
	ID           string `json:"id"`
	Name         string `json:"name,omitempty"`
	Type         string `json:"type"`
	Path         string `json:"path"`
	Target       string `json:"target"` // type, host and path
	Delivered    uint64 `json:"delivered"`
	RefusedAgain uint64 `json:"refusedAgain"`
	LastRefusal  string `json:"lastRefusal,omitempty"`
}

func (r *Replay) result(left int64) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := Result{
		Complete: left == 0, Remaining: left, Letters: r.read, Skipped: r.skipped,
		Endpoints: []EndpointResult{}, Earlier: r.earlier(),
	}
	var routed uint64
	for id, to := range r.recipients {
		snap := to.Snapshot()
		if snap.Counts.Routed == 0 {
			continue
		}
		routed += snap.Counts.Routed
		result.Delivered += snap.Counts.Delivered
		result.RefusedAgain += to.refused
		result.Endpoints = append(result.Endpoints, EndpointResult{
			ID: id, Name: snap.Endpoint.Name, Type: string(snap.Endpoint.Type), Path: snap.Endpoint.Path, Target: sinks.NewRecipient(snap.Endpoint).Target,
			Delivered: snap.Counts.Delivered, RefusedAgain: to.refused, LastRefusal: to.lastRefusal,
		})
	}
	result.Undelivered = routed - result.Delivered - result.RefusedAgain
	slices.SortFunc(result.Endpoints, func(a, b EndpointResult) int { return cmp.Compare(a.ID, b.ID) })
	return result
}

// Progress is how far a replay is.
type Progress struct {
	Done, Total int64
	Waits       []string // paths of endpoints that throttle
}

func (r *Replay) progress(left int64) {
	if r.Progress == nil {
		return
	}
	p := Progress{Total: r.Source.Total()}
	p.Done = p.Total - left
	for _, to := range r.recipients {
		if snap := to.Snapshot(); snap.State == sinks.StateThrottled {
			p.Waits = append(p.Waits, snap.Endpoint.Path)
		}
	}
	slices.Sort(p.Waits)
	r.Options.Progress(p)
}
