package deadletter

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/internal/event"
	"twinegress/internal/untrusted"
)

// Status is what became of the letters, since start.
type Status struct {
	Waiting   int64                    // not stored yet; their partitions can't commit past them
	Cut       uint64                   // stored in part
	GivenUp   [event.NumReasons]uint64 // not stored, by why: their events are lost
	LastError string                   // of the last refusal
}

// GivenUpReasons are those that a letter can be given up for.
var GivenUpReasons = []event.Reason{event.Unreachable, event.Unauthorized, event.Rejected, event.TooLarge}

type counts struct {
	waiting   atomic.Int64
	cut       atomic.Uint64
	givenUp   [event.NumReasons]atomic.Uint64
	lastError atomic.Pointer[string]
}

func (c *counts) failed(err error) (text string) {
	text = untrusted.Text(err.Error())
	c.lastError.Store(&text)
	return text
}

// Status returns the counts of this moment.
func (t *Topic) Status() Status {
	s := Status{Waiting: t.counts.waiting.Load(), Cut: t.counts.cut.Load()}
	for r := range t.counts.givenUp {
		s.GivenUp[r] = t.counts.givenUp[r].Load()
	}
	if text := t.counts.lastError.Load(); text != nil {
		s.LastError = *text
	}
	return s
}

// logLosses returns a log for what is lost: a writer of the ingest topic decides
// how often that is. It has ten lines of a kind each second; the counts have all.
func logLosses(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, 10, 0)
	}))
}
