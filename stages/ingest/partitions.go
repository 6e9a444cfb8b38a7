package ingest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/event"
)

// drainTimeout bounds the wait for outcomes when partitions are revoked, and half of it
// the commit after that: together well under the rebalance time-out, after which the
// group would expel us.
const drainTimeout = 10 * time.Second

// partitionSet holds the partitions that this copy owns, and takes part in the
// group's rebalances. The group's callbacks (assigned, revoked, lost) run on
// goroutines of the client, one at a time, while polls go on.
// (kgo.BlockRebalanceOnPoll would keep them apart, at the price that a drain
// stops every partition's polls, those that stay too.) What that asks for:
//
//   - Before revoked is called, the client has thrown away what it had fetched
//     of the partitions. What a poll had returned by then may not be cut yet:
//     cut drops records of partitions that aren't owned.
//   - Before lost is called it has not: the same.
//   - A partition may come back before such a poll is cut. Its records would
//     then be tracked by the new ownership, before records that the owner in
//     between has resolved: the watermark would go back. So assigned makes no
//     partition while a poll is under way. After it, the client asks for the
//     committed offsets and only then begins to fetch.
//
// Lock order: pollGate.mu, partitionSet.mu, then either scheduler.mu or a
// partition's mu, and under that one the client's own locks. No lock is held
// while Run emits a chunk or a drain waits.
type partitionSet struct {
	member    *member
	consumer  consumer
	committer *committer
	restorer  *restorer
	scheduler *scheduler
	gate      *pollGate
	joined    func()       // called at each assignment, also of nothing
	ends      kadm.Offsets // where each partition is no longer read; nil: no end

	mu    sync.Mutex
	owned map[topicPartition]*partition
	gone  []*partition // not owned any more; some have bytes in flight still
	// lent are the lanes that are taken; some are of ownerships that have ended.
	lent map[*event.Ownership]loan
}

// assigned makes a partition of each that is assigned to this copy.
func (s *partitionSet) assigned(_ context.Context, client *kgo.Client, added map[string][]int32) {
	defer s.joined() // once the partitions show in the status
	if len(added) == 0 {
		return
	}
	s.gate.betweenPolls(func() {
		for _, p := range s.remove(added) {
			s.restorer.finish(p) // a topic that was made anew: the offsets of the old one mean nothing
		}
		s.add(added)
	})
	if s.restorer.positions != nil { // the client begins to fetch when it knows what is committed
		client.PauseFetchPartitions(added)
	} else {
		client.ResumeFetchPartitions(added) // an earlier ownership may have ended in a pause
	}
	s.member.log.Info("partitions assigned", zap.Stringer("partitions", partitionNames(added)))
}

// revoked releases partitions in order: chunks in flight may settle, for a
// while, and are committed.
func (s *partitionSet) revoked(ctx context.Context, _ *kgo.Client, removed map[string][]int32) {
	if owned := s.remove(removed); len(owned) > 0 {
		s.handOver(ctx, owned)
	}
	if len(removed) > 0 {
		s.member.log.Info("partitions revoked", zap.Stringer("partitions", partitionNames(removed)))
	}
}

// handOver ends ownerships in order. What stays is committed at the next interval: the
// less there is to say now, the sooner the partitions are another copy's.
func (s *partitionSet) handOver(ctx context.Context, owned []*partition) {
	limit := min(drainTimeout, s.member.config.RebalanceTimeout/2)
	draining, cancelDrain := context.WithTimeout(ctx, limit)
	defer cancelDrain()
	var drains sync.WaitGroup
	for _, p := range owned {
		s.restorer.revoked(p)
		drains.Go(func() { p.drain(draining) })
	}
	drains.Wait()
	committing, cancelCommit := context.WithTimeout(ctx, limit/2)
	defer cancelCommit()
	if err := s.committer.commit(committing, owned); err != nil {
		s.member.log.Warn("committing before giving partitions up failed: their new owner repeats what was not committed", zap.Error(err))
	}
	for _, p := range owned {
		s.restorer.finish(p)
	}
}

// lost releases partitions that are another copy's already. ctx is the
// client's: once it has ended, Close has released them, and nothing was lost.
func (s *partitionSet) lost(ctx context.Context, _ *kgo.Client, removed map[string][]int32) {
	for _, p := range s.remove(removed) {
		s.restorer.finish(p)
	}
	if len(removed) > 0 && ctx.Err() == nil {
		s.member.log.Warn("partitions lost: without contact to the group they may be another copy's by now", zap.Stringer("partitions", partitionNames(removed)))
	}
}

func (s *partitionSet) add(added map[string][]int32) {
	var ids []topicPartition
	for topic, numbers := range added {
		for _, number := range numbers {
			ids = append(ids, topicPartition{topic, number})
		}
	}
	member := s.member.id()
	s.mu.Lock()
	defer s.mu.Unlock()
	lanes := s.scheduler.assign(ids, s.owned)
	for i, id := range ids {
		p := newPartition(id, lanes[i], s.consumer)
		p.member = member
		p.restored = s.restorer.positions == nil
		if s.ends != nil {
			p.limit = s.ends[id.topic][id.number].At // 0 for a partition that came later
		}
		s.owned[id] = p
	}
	s.scheduler.rebalance(s.owned)
}

// remove returns those of the partitions that were owned.
func (s *partitionSet) remove(removed map[string][]int32) (owned []*partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	for topic, numbers := range removed {
		for _, number := range numbers {
			id := topicPartition{topic, number}
			if p := s.owned[id]; p != nil {
				owned = append(owned, p)
				s.gone = append(s.gone, p)
				delete(s.owned, id)
			}
		}
	}
	s.scheduler.rebalance(s.owned)
	return owned
}

// releaseAll makes leaving the group quick: what has no outcome by now gets
// none, so that revoked has nothing to wait for. It returns what was owned, to be
// committed.
func (s *partitionSet) releaseAll() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	owned := slices.Collect(maps.Values(s.owned))
	for _, p := range owned {
		p.release()
	}
	clear(s.owned)
	return owned
}

// get returns a partition, or nil if it isn't owned.
func (s *partitionSet) get(id topicPartition) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned[id]
}

func (s *partitionSet) all() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.owned))
}

// largest returns the partition that has the most; nil if there is none. It may be
// one that isn't owned any more: what is in flight of it takes room as before.
func (s *partitionSet) largest(of func(*partition) int64) (largest *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	most := int64(-1)
	consider := func(p *partition) {
		if n := of(p); n > most {
			largest, most = p, n
		}
	}
	for _, p := range s.owned {
		consider(p)
	}
	for _, p := range s.gone {
		consider(p)
	}
	return largest
}

// forget forgets partitions that are gone and have nothing in flight. The caller
// holds mu.
func (s *partitionSet) forget() {
	s.gone = slices.DeleteFunc(s.gone, func(p *partition) bool { return p.bytes.Load() == 0 })
}

// pollGate keeps assignments, seeks and polls apart.
type pollGate struct {
	between sync.Mutex   // one at a time
	mu      sync.RWMutex // read-locked from a poll until its records are cut
	// ctx ends a poll that waits for records when betweenPolls wants mu, which
	// alone changes it. Both are guarded by mu.
	ctx       context.Context
	interrupt context.CancelFunc
}

func newPollGate() *pollGate {
	g := new(pollGate)
	g.ctx, g.interrupt = context.WithCancel(context.Background())
	return g
}

// betweenPolls ends the poll that is under way, and runs f once its records are cut.
func (g *pollGate) betweenPolls(f func()) {
	g.between.Lock()
	defer g.between.Unlock()
	g.interrupt()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ctx, g.interrupt = context.WithCancel(context.Background())
	f()
}

// partitionNames prints partitions by topic.
type partitionNames map[string][]int32

func (n partitionNames) String() string {
	return strings.TrimPrefix(fmt.Sprint(map[string][]int32(n)), "map")
}
