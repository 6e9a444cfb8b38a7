package pipeline

import (
	"time"

	"twinegress/sinks"
)

func (p *Pipeline) brief(s *sinks.Sender) *sinks.Brief {
	b := new(sinks.Brief)
	s.Brief(b, time.Now())
	b.Health = p.holdsBack(b.Health)
	return b
}

// Briefs calls f with each endpoint that is in force, in the order of their ids. What
// f gets is overwritten with the next one.
func (p *Pipeline) Briefs(f func(*sinks.Brief)) {
	var b sinks.Brief
	now := time.Now()
	for _, s := range p.router.inForce() {
		s.Brief(&b, now)
		b.Health = p.holdsBack(b.Health)
		f(&b)
	}
}
