package ingest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// seekInterval is how often partitions that can't be read on are looked at.
const seekInterval = 200 * time.Millisecond

// obstacle is why a partition can't be read on where it is.
type obstacle uint8

const (
	none obstacle = iota
	// tooLarge: the next batch takes more memory than ingest.limits.batchBytes, or
	// can't be unpacked.
	// Its dead letter is tracked as a chunk of its offsets.
	tooLarge
	// outOfRange: the brokers say that they don't have the next offset.
	outOfRange
)

// seeker moves the client past an obstacle. It waits until all that was read of
// the partition is resolved: the watermark goes where the client does.
type seeker struct {
	member     *member
	partitions *partitionSet
	gate       *pollGate
	budget     *budget
	valve      *valve
	due        chan struct{} // has a token when there is something to do

	mu       sync.Mutex
	suspects map[topicPartition]suspect
}

// suspect is a partition of which a batch was not unpacked. The client stops
// fetching it then, and throws the error away if it ends its fetches before that
// is polled: for a rebalance, or since another partition is moved. Nobody would
// ever hear of it.
type suspect struct {
	since time.Time
	next  int64 // the offset that it was at when it was last looked at; -1 before that
}

// suspectTimeout is how long the error may take to be polled.
const suspectTimeout = time.Second

// run moves the client until ctx ends.
func (s *seeker) run(ctx context.Context) {
	admin := kadm.NewClient(s.member.client)
	tick := time.NewTicker(seekInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.due:
		case <-ctx.Done():
			return
		}
		for await(ctx, func() error { return s.seek(ctx, admin) }) != nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

var errObstacles = errors.New("there are obstacles left")

// seek moves the client where it can, and returns errObstacles if some are left.
func (s *seeker) seek(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, offsetsInterval)
	defer cancel()
	left := false
	for _, p := range s.partitions.all() {
		what, at, resolved := p.blockedBy()
		switch {
		case what == none && s.suspected(p, at.Offset):
			left = !resolved || !s.move(p, what, at, kgo.EpochOffset{Epoch: -1, Offset: at.Offset}) || left
		case what == none:
		case !resolved:
			left = true
		case what == tooLarge:
			left = !s.move(p, what, at, at) || left // its dead letter is stored
		case what == outOfRange:
			left = !s.enter(ctx, admin, p, at) || left
		}
	}
	if left || s.waits() {
		return errObstacles
	}
	return nil
}

// OnFetchBatchRead implements kgo.HookFetchBatchRead: a compressed batch without
// records is one that was not unpacked. The client waits for its fetches while it
// holds locks of its own, which a partition needs under its lock: a partition must
// not be asked anything here.
func (s *seeker) OnFetchBatchRead(_ kgo.BrokerMetadata, topic string, partition int32, m kgo.FetchBatchMetrics) {
	if m.NumRecords > 0 || m.CompressionType == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspects[topicPartition{topic, partition}] = suspect{time.Now(), -1}
	signal(s.due)
}

// suspected reports whether the error of a batch that was not unpacked doesn't come:
// it has had time to, and the partition is where it was.
func (s *seeker) suspected(p *partition, next int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, is := s.suspects[p.topicPartition]
	if !is {
		return false
	}
	due := time.Since(was.since) >= suspectTimeout
	switch {
	case was.next == next && next >= 0:
		return due && !s.budget.spent.Load() && !s.valve.closed()
	case was.next < 0 || !due: // what was polled before is tracked now
		s.suspects[p.topicPartition] = suspect{was.since, next}
	default:
		delete(s.suspects, p.topicPartition) // it is read on
	}
	return false
}

// waits reports whether there are suspects.
func (s *seeker) waits() bool {
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.suspects))
	s.mu.Unlock()
	waits := false
	for _, id := range ids { // without the lock: see OnFetchBatchRead
		if s.partitions.get(id) == nil {
			s.unsuspect(id)
		} else {
			waits = true
		}
	}
	return waits
}

// unsuspect forgets a suspect: its error came, or it is moved.
func (s *seeker) unsuspect(id topicPartition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.suspects, id)
}

// enter moves the client to the offset, or to the nearest that there is. Mostly it
// is there, and brokers don't know it yet or any more, after an election. Reading
// from the start is only right for who was below it: for anybody else it would send
// again what was delivered, up to the whole topic.
func (s *seeker) enter(ctx context.Context, admin *kadm.Client, p *partition, at kgo.EpochOffset) bool {
	starts, err := Listed(admin.ListStartOffsets(ctx, p.topic))
	if err != nil {
		return false
	}
	ends, err := Listed(admin.ListEndOffsets(ctx, p.topic))
	if err != nil {
		return false
	}
	start, end := starts[p.topic][p.number], ends[p.topic][p.number]
	fields := []zap.Field{
		zap.String("topic", p.topic), zap.Int32("partition", p.number), zap.Int64("offset", at.Offset),
		zap.Int64("start", start.Offset), zap.Int64("end", end.Offset),
	}
	to := kgo.EpochOffset{Epoch: -1, Offset: min(max(at.Offset, start.Offset), end.Offset)}
	switch {
	case at.Offset < 0: // a new group: it was asked for a start that retention has overtaken
	case at.Offset < start.Offset:
		s.member.log.Error("events have left the topic before they were read: reading goes on with the oldest that there is", fields...)
	case at.Offset > end.Offset:
		s.member.log.Error("the next offset is behind the end of the partition, which has lost events or was made anew: reading goes on at its end, and what is before it is not read",
			fields...)
	}
	return s.move(p, outOfRange, at, to)
}

// move moves the client, between two polls, unless the partition is another copy's
// by now. It may have been read on since it was looked at: what it was blocked by,
// and at, must still be so, or the events between would come again, behind those
// after them.
func (s *seeker) move(p *partition, by obstacle, at, to kgo.EpochOffset) (moved bool) {
	moved = true
	s.gate.betweenPolls(func() {
		if s.partitions.get(p.topicPartition) != p {
			return
		}
		if now, next, resolved := p.blockedBy(); now != by || next != at || !resolved {
			moved = false
			return
		}
		set := func(to kgo.EpochOffset) {
			s.member.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.number: to}})
		}
		// Of a partition of which nothing is committed, and nothing read, the client knows
		// no offset, and would not move it.
		s.member.client.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.number: to}})
		if to.Epoch < 0 { // the client does nothing if it was moved to the very same before
			set(kgo.EpochOffset{Epoch: 0, Offset: to.Offset})
		}
		set(to)
		p.unblock(to.Offset)
		s.unsuspect(p.topicPartition)
	})
	return moved
}

// block records what reading can't get past.
func (p *partition) block(by obstacle, epoch int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.obstacle == none {
		p.obstacle, p.epoch = by, epoch
	}
}

// blockedBy returns what reading can't get past and the next offset, and whether
// all before it is resolved.
func (p *partition) blockedBy() (what obstacle, at kgo.EpochOffset, resolved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state >= draining {
		return none, kgo.EpochOffset{}, false
	}
	return p.obstacle, kgo.EpochOffset{Epoch: p.epoch, Offset: p.watermark.Next()}, p.watermark.Tracked() == 0
}

// unblock makes reading go on at an offset, which nothing in flight is behind.
func (p *partition) unblock(at int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.obstacle = none
	if was := p.watermark.Offset(); at >= 0 && was >= 0 && was != at {
		p.watermark.SetOffset(at)
		p.mark(-1)
	}
}
