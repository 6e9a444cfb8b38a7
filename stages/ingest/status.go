package ingest

import "slices"

// Status is what the consumer tells about itself.
type Status struct {
	Records    int64   // read since start
	Lag        int64   // offsets between the watermarks and the partitions' ends
	Partitions []int32 // owned now, over all topics
	InFlight   int64   // bytes of events without an outcome
}

// Status gives the consumer's state now.
func (s *Source) Status() Status {
	st := Status{Records: s.records.Load(), InFlight: s.inFlight.Load(), Partitions: []int32{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, t := range s.trackers {
		st.Partitions = append(st.Partitions, p.number)
		st.Lag += t.lag()
	}
	slices.Sort(st.Partitions)
	return st
}

// Joined reports whether this copy is a member of the group.
func (s *Source) Joined() bool {
	member, generation := s.client.GroupMetadata()
	return member != "" && generation >= 0
}

// Full reports whether polling waits: as much is in flight as may be.
func (s *Source) Full() bool { return s.full.Load() }
