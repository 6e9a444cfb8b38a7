package catchup

import (
	"math"
	"time"

	"go.uber.org/zap"
)

// This file is what becomes of a partition that can't be read on.

// failed returns when to fetch again, and says that a partition can't be read when that
// begins.
func (s *step) failed(err error) next {
	if s.ctx.Err() != nil {
		return next{}
	}
	if s.fails++; s.fails == 1 {
		s.o.Log.Warn("reading for endpoints that are behind fails, and is tried again until it succeeds",
			zap.String("topic", s.owned.Topic), zap.Int32("partition", s.owned.Partition), zap.Int64("offset", s.at), zap.Error(err))
	}
	delay := time.Duration(math.Min(float64(maxFailDelay), float64(minFailDelay)*math.Pow(2, float64(s.fails-1))))
	return next{due: time.Now().Add(delay)}
}

func (s *step) recovered() {
	if s.fails > 0 {
		s.o.Log.Info("reading for endpoints that are behind succeeds again",
			zap.String("topic", s.owned.Topic), zap.Int32("partition", s.owned.Partition))
		s.fails = 0
	}
}

// outOfRange moves the candidates that are where the brokers have nothing.
func (s *step) outOfRange(c *client, in []candidate) error {
	start, end, err := c.extent(s.ctx, s.owned)
	if err != nil {
		return err
	}
	s.giving.Lock()
	defer s.giving.Unlock()
	if s.dropped {
		return nil
	}
	err = errOutOfRange // the brokers have it, but don't know it yet or any more: after an election
	for _, to := range in {
		fields := []zap.Field{
			to.Endpoint().LogName(), zap.String("topic", s.owned.Topic), zap.Int32("partition", s.owned.Partition),
			zap.Int64("offset", to.next), zap.Int64("start", start), zap.Int64("end", end),
		}
		switch {
		case to.next < start:
			err = nil
			skipped := to.Skip(s.owned, start)
			if id := to.Endpoint().ID; !s.expired[id] {
				s.expired[id] = true
				s.o.Log.Error("events have left the topic before an endpoint that is behind got them: it goes on with the oldest that there is",
					append(fields, zap.Int64("skipped", skipped))...)
			}
		case to.next > end:
			err = nil
			to.Seek(s.owned, start, -1)
			s.o.Log.Error("an endpoint's position is behind the end of the partition, which has lost events or was made anew: it goes on with the oldest that there is",
				fields...)
		}
	}
	return err
}
