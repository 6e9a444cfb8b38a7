package pipeline

import (
	"time"

	"twinegress/sinks"
)

func (p *Pipeline) brief(s *sinks.Sender) (*sinks.Brief, CatchUp) {
	b, now := new(sinks.Brief), time.Now()
	s.Brief(b, now)
	b.Health = p.holdsBack(b.Health)
	return b, p.paces.of(b.Endpoint.ID, &b.Health, now)
}

// Briefs calls f with each endpoint that is in force, in the order of their ids. What
// f gets is overwritten with the next one.
func (p *Pipeline) Briefs(f func(*sinks.Brief, CatchUp)) {
	var b sinks.Brief
	now := time.Now()
	for _, s := range p.router.inForce() {
		s.Brief(&b, now)
		b.Health = p.holdsBack(b.Health)
		f(&b, p.paces.of(b.Endpoint.ID, &b.Health, now))
	}
}
