package fleet

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/kafka"
	"twinegress/internal/untrusted"
)

const (
	// expiry is how old a command may be.
	expiry = time.Minute
	// maxDone bounds the commands that are remembered so that none is done twice.
	maxDone = 1000
	// quiet is how long nothing comes from a topic that is read to its end.
	quiet = 2 * time.Second
	// lostAfter is for how long nothing of this copy comes back before it looks whether
	// the topic is still there, and the one that it was.
	lostAfter = 2 * staleAfter
)

// sayAgain is how often the log says that records are not taken, and for how long
// the notice does after one.
const sayAgain = time.Minute

// refusals are records of others that are not taken.
type refusals struct {
	records uint64
	last    time.Time
	why     string    // of the last one
	at      time.Time // of the line in the log
}

// readPosition is how far the topic is read.
type readPosition struct {
	caughtUp bool      // all that was there at the start is read
	echoedAt time.Time // a head of this copy came back
	stamp    time.Time // of that head, by the brokers' clock
}

// age returns how old a record is by the brokers' clock, which stamps all of them:
// that of this process may be minutes off.
func (p *readPosition) age(r *kgo.Record, now time.Time) time.Duration {
	if p.stamp.IsZero() {
		return now.Sub(r.Timestamp)
	}
	return p.stamp.Add(now.Sub(p.echoedAt)).Sub(r.Timestamp)
}

// follow takes in what the others say, until ctx ends.
func (f *Fleet) follow(ctx context.Context) {
	begun := time.Now()
	mended := begun
	for said := ""; ; {
		if now := time.Now(); f.silence(now, mended) > lostAfter {
			f.mend(ctx)
			mended = time.Now()
		}
		polling, cancel := context.WithTimeout(ctx, quiet)
		fetches := f.client.PollFetches(polling)
		late := polling.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		var commands []command
		f.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			if c, ok := f.take(r, now); ok {
				commands = append(commands, c)
			}
		})
		if !f.position.caughtUp && (late && fetches.NumRecords() == 0 || now.Sub(begun) > quiet && atEnd(fetches)) {
			f.catchUp(now) // nothing of this copy's own comes: it may not write
		}
		f.mu.Unlock()
		for _, c := range commands {
			if e, ok := f.options.Pipeline.Retry(c.Retry); ok { // else this copy doesn't have it yet, or any more
				f.options.Log.Info("another copy asked to end an endpoint's back-off", e.LogName(), zap.String("copy", c.copy))
			}
		}
		fetches.EachError(func(_ string, _ int32, err error) {
			batch, tooLarge := errors.AsType[*kgo.ErrDecompressTooLarge](err)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
			case tooLarge:
				f.skip(batch)
			default:
				if text := untrusted.Text(err.Error()); said != text {
					said = text
					f.options.Log.Warn("the status topic can't be read: the other copies are as they were", zap.String("topic", f.options.Topic), zap.String("problem", text))
				}
				kafka.Pause(ctx, time.Second)
			}
		})
	}
}

// take takes a record in. It returns the command that is to be done, if it is one.
// f.mu is held.
func (f *Fleet) take(r *kgo.Record, now time.Time) (_ command, ok bool) {
	kind, id, block := parseKey(string(r.Key))
	switch {
	case f.isOfOthers(r):
	case kind == "":
		f.refuse("its key is not one of ours", now)
	case id == f.id: // what this copy is it knows itself
		switch {
		case r.Value == nil && kind == keyHead: // others took it for dead, and have dropped all that it said
			for n := range f.buried {
				f.buried[n] = true
			}
		case r.Value == nil && kind == keyBlock:
			f.buried[block] = true
		case kind == keyHead:
			f.position.echoedAt, f.position.stamp = now, r.Timestamp
			f.copies.newest = maxTime(f.copies.newest, r.Timestamp)
			if !f.position.caughtUp {
				f.catchUp(now)
			}
		}
	case kind == keyCommand:
		if r.Value != nil && f.position.caughtUp {
			return f.accept(r, now)
		}
	default:
		if err := f.copies.put(kind, id, block, r.Value, r.Timestamp, now); err != nil {
			f.refuse(id+": "+err.Error(), now)
		}
	}
	return command{}, false
}

// isOfOthers reports whether a record is of another group's fleet, which has the same
// topic: by default all of a Kafka's groups do.
func (f *Fleet) isOfOthers(r *kgo.Record) bool {
	for _, h := range r.Headers {
		if h.Key == groupHeader {
			return string(h.Value) != f.options.Group
		}
	}
	return false
}

// atEnd reports whether there was nothing more to read behind each of some records.
func atEnd(fetches kgo.Fetches) bool {
	end := fetches.NumRecords() > 0
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 < p.HighWatermark {
			end = false
		}
	})
	return end
}

// silence returns for how long nothing of this copy has come back, at most since a time.
func (f *Fleet) silence(now, since time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return now.Sub(maxTime(f.position.echoedAt, since))
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (f *Fleet) catchUp(now time.Time) {
	f.position.caughtUp = true
	f.copies.caughtUp(now)
}

// accept returns a command of another copy that is to be done: not twice, and not
// when it is old. f.mu is held.
func (f *Fleet) accept(r *kgo.Record, now time.Time) (_ command, ok bool) {
	c, err := readCommand(r.Value)
	if err != nil || uuid.Validate(c.Retry) != nil {
		f.refuse(errMalformed.Error(), now)
		return command{}, false
	}
	for id, at := range f.done {
		if now.Sub(at) > 2*expiry {
			delete(f.done, id)
		}
	}
	if _, is := f.done[c.ID]; is || len(f.done) >= maxDone || f.position.age(r, now) > expiry {
		return command{}, false
	}
	f.done[c.ID] = now
	c.copy = c.Instance // which several copies on a host share
	if id := strings.TrimPrefix(string(r.Key), keyCommand); legalID.MatchString(id) {
		c.copy = id
	}
	return c, true
}

// skip goes on behind a batch that takes too much memory.
func (f *Fleet) skip(b *kgo.ErrDecompressTooLarge) {
	f.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{b.Topic: {b.Partition: {Epoch: b.Epoch, Offset: b.NextOffset}}})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse("a batch that takes more memory than one may", time.Now())
}

// refuse records that a record is not taken, and says so now and then. f.mu is held.
func (f *Fleet) refuse(why string, now time.Time) {
	f.refusals.records++
	if now.Sub(f.refusals.at) > sayAgain {
		f.options.Log.Warn("a record of the status topic is not taken", zap.String("topic", f.options.Topic), zap.String("problem", untrusted.Text(why)))
		f.refusals.at = now
	}
	f.refusals.last, f.refusals.why = now, untrusted.Text(why)
}
