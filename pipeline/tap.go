package pipeline

import "twinegress/sinks"

// Tap starts a look at an endpoint's events, of this copy's share, perSecond of them
// at most; false if nothing of the endpoint runs. The Tap must be closed.
func (p *Pipeline) Tap(id string, perSecond int) (*sinks.Tap, bool) {
	s := p.router.sender(id)
	if s == nil {
		return nil, false
	}
	return s.Tap(perSecond, p.options.Render), true
}
