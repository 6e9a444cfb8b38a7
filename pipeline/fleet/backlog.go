package fleet

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"twinegress/pipeline"
)

// catchUp is what an entry says of an endpoint that is behind: pipeline.CatchUp, in
// numbers. since is 0 of one that is not.
type catchUp struct {
	backlog    int64
	since      int64
	reason     string
	oldestAt   int64
	pace       int64 // events in 10 s, plus one; 0: not known
	caughtUpAt int64
	falls      bool
}

func (c *catchUp) set(from *pipeline.CatchUp) {
	*c = catchUp{
		backlog: from.Backlog, since: millisOf(from.BehindSince), reason: from.BehindReason, falls: from.FallsBehind,
		oldestAt: millisOf(from.BacklogOldestAt), caughtUpAt: millisOf(from.CaughtUpAt),
	}
	if from.CatchUpPerSecond != nil {
		c.pace = 1 + int64(math.Round(*from.CatchUpPerSecond*10))
	}
}

// millisOf returns a time of an entry that may be none.
func millisOf(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return millis(*t)
}

// numbers calls f with each field that is a number.
func (c *catchUp) numbers(f func(protowire.Number, uint64)) {
	f(fieldBacklog, uint64(c.backlog))
	f(fieldBehindSince, uint64(c.since))
	f(fieldOldestAt, uint64(c.oldestAt))
	f(fieldPace, uint64(c.pace))
	f(fieldCaughtUpAt, uint64(c.caughtUpAt))
}

func (c *catchUp) setNumber(field protowire.Number, n int64) {
	switch field {
	case fieldBacklog:
		c.backlog = n
	case fieldBehindSince:
		c.since = n
	case fieldOldestAt:
		c.oldestAt = n
	case fieldPace:
		c.pace = n
	case fieldCaughtUpAt:
		c.caughtUpAt = n
	}
}

// add adds what another copy says of the same endpoint, of its own partitions. The
// endpoint has caught up when it has everywhere: where one copy doesn't know its pace, or
// when that is, the sum doesn't.
func (c *catchUp) add(o *catchUp) {
	switch {
	case o.since == 0:
		return
	case c.since == 0:
		*c = *o
		return
	}
	c.backlog += o.backlog
	c.since = min(c.since, o.since)
	if c.reason == "" {
		c.reason = o.reason
	}
	c.oldestAt = earlier(c.oldestAt, o.oldestAt)
	c.falls = c.falls || o.falls
	if c.pace == 0 || o.pace == 0 {
		c.pace = 0
	} else {
		c.pace += o.pace - 1
	}
	if c.caughtUpAt == 0 || o.caughtUpAt == 0 {
		c.caughtUpAt = 0
	} else {
		c.caughtUpAt = max(c.caughtUpAt, o.caughtUpAt)
	}
}

func (c *catchUp) shown() pipeline.CatchUp {
	s := pipeline.CatchUp{
		Backlog: c.backlog, BehindSince: timeOf(c.since), BehindReason: c.reason, FallsBehind: c.falls,
		BacklogOldestAt: timeOf(c.oldestAt), CaughtUpAt: timeOf(c.caughtUpAt),
	}
	if c.pace > 0 {
		perSecond := float64(c.pace-1) / 10
		s.CatchUpPerSecond = &perSecond
	}
	return s
}
