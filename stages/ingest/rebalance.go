package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// drainTimeout bounds the wait for outcomes when partitions are revoked: well
// under the rebalance time-out, after which the group would expel us.
const drainTimeout = 10 * time.Second

// The group's callbacks run on goroutines of the client, while polls go on.
// (kgo.BlockRebalanceOnPoll would keep them apart, at the price that a drain
// stops every partition's polls, those that stay too.) What that asks for:
//
//   - Before revoked is called, the client has thrown away what it had fetched
//     of the partitions. What a poll had returned by then may not be cut yet:
//     cut drops what belongs to no tracker.
//   - Before lost is called it has not: the same.
//   - A partition may come back before such a poll is cut, and then it would
//     land on the new ownership's tracker, before records that the owner in
//     between has done with: the watermark would go back. So assigned makes no
//     tracker while a poll is under way. After it, the client asks for the
//     committed offsets and only then begins to fetch.

// partitions prints what a rebalance is about.
type partitions map[string][]int32

func (p partitions) String() string {
	return strings.TrimPrefix(fmt.Sprint(map[string][]int32(p)), "map")
}

// assigned makes a tracker for each partition that is ours from now on.
func (s *Source) assigned(_ context.Context, client *kgo.Client, added map[string][]int32) {
	if len(added) == 0 {
		return
	}
	s.endTurn() // a poll may wait for records that don't come
	s.polling.Lock()
	s.turn, s.endTurn = context.WithCancel(context.Background())
	for _, t := range s.forget(added) {
		t.lose() // a topic that was made anew: the offsets of the old one mean nothing
	}
	s.mu.Lock()
	ours := make([]partition, 0, len(added))
	for topic, numbers := range added {
		for _, number := range numbers {
			ours = append(ours, partition{topic, number})
		}
	}
	s.lanes.assign(ours, s.trackers)
	for _, p := range ours {
		t := newTracker(p.topic, p.number, s.lanes[p], s, maxWindow)
		if s.ends != nil {
			t.limit = s.ends[p.topic][p.number].At // 0 for a partition that came later
		}
		s.trackers[p] = t
	}
	s.spread()
	s.mu.Unlock()
	s.polling.Unlock()
	client.ResumeFetchPartitions(added) // an earlier ownership may have ended in a pause
	s.log.Info("partitions assigned", zap.Stringer("partitions", partitions(added)))
}

// positioned is told what the group has committed of partitions that were assigned.
func (s *Source) positioned(_ context.Context, _ *kgo.Client, answer *kmsg.OffsetFetchResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range answer.Groups {
		for _, topic := range group.Topics {
			for _, p := range topic.Partitions {
				if t := s.trackers[partition{topic.Topic, p.Partition}]; t != nil && p.ErrorCode == 0 {
					t.resumes(p.Offset)
				}
			}
		}
	}
	signal(s.unmeasured)
	return nil
}

// startLatest makes `start: latest` mean what it says: it is for a new group.
// To the client it is where any partition begins that has no committed offset,
// and so the first events of a partition that was added would be skipped. And
// what "the end" was is settled here, once, rather than by each copy that gets
// the partition before something is committed.
func (s *Source) startLatest(ctx context.Context, at map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	fresh := false
	for _, of := range at {
		for _, offset := range of {
			fresh = fresh || offset.EpochOffset().Offset < 0
		}
	}
	if !fresh {
		return at, nil
	}
	admin := kadm.NewClient(s.client)
	committed, err := Committed(ctx, admin, s.config.Group)
	if err != nil {
		return nil, err
	}
	starts, err := Listed(admin.ListStartOffsets(ctx, s.config.Topics...))
	if err != nil {
		return nil, err
	}
	ends, err := Listed(admin.ListCommittedOffsets(ctx, s.config.Topics...))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, of := range at {
		for number, offset := range of {
			if offset.EpochOffset().Offset >= 0 {
				continue
			}
			from := ends[topic][number]
			if len(committed[topic]) > 0 { // the group has read from the topic
				from = starts[topic][number]
			}
			of[number] = kgo.NewOffset().At(from.Offset)
			if t := s.trackers[partition{topic, number}]; t != nil {
				t.begins(from.Offset, from.LeaderEpoch)
			}
		}
	}
	signal(s.unmeasured)
	return at, nil
}

// revoked gives partitions up in order: outcomes that are on their way may
// come in, for a while, and are committed.
func (s *Source) revoked(ctx context.Context, client *kgo.Client, gone map[string][]int32) {
	ctx, cancel := context.WithTimeout(ctx, min(drainTimeout, s.config.RebalanceTimeout/2))
	defer cancel()
	var drains sync.WaitGroup
	for _, t := range s.forget(gone) {
		drains.Go(func() { t.drain(ctx) })
	}
	drains.Wait()
	if err := commit(ctx, client); err != nil && len(gone) > 0 {
		s.log.Warn("committing before giving partitions up failed: their new owner repeats what was not committed", zap.Error(err))
	}
	if len(gone) > 0 {
		s.log.Info("partitions revoked", zap.Stringer("partitions", partitions(gone)))
	}
}

// commit waits for no longer than ctx lasts. The client does: for the commit
// before this one, if a broker doesn't answer it. One that comes late is of
// the group's generation before, and does no harm.
func commit(ctx context.Context, client *kgo.Client) error {
	done := make(chan error, 1)
	go func() { done <- client.CommitMarkedOffsets(ctx) }() // ends with the client, at the latest
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lost forgets partitions that are another copy's already.
func (s *Source) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	for _, t := range s.forget(gone) {
		t.lose()
	}
	if len(gone) > 0 && s.alive.Err() == nil { // or Close has given them up
		s.log.Warn("partitions lost: the group has given them to others", zap.Stringer("partitions", partitions(gone)))
	}
}

func (s *Source) forget(gone map[string][]int32) (forgotten []*tracker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, numbers := range gone {
		for _, number := range numbers {
			key := partition{topic, number}
			if t := s.trackers[key]; t != nil {
				forgotten = append(forgotten, t)
				delete(s.trackers, key)
			}
		}
	}
	s.spread()
	return forgotten
}

// spread evens out how many of the partitions that are ours have each lane.
// The caller holds the lock.
func (s *Source) spread() {
	if s.lanes.spread(s.trackers, time.Now()) {
		time.AfterFunc(moveTimeout, s.wake) // those that couldn't move go on as they are
	}
}

// forgetAll makes leaving the group quick: what has no outcome by now gets
// none, so that revoked has nothing to wait for.
func (s *Source) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trackers {
		t.lose()
	}
	clear(s.trackers)
}

// leaveForAWhile tells the brokers that a static member of the consumer
// protocol stops, so that the one that comes under its name has its place at
// once and not after the session time-out. The client (v1.22) does that itself,
// but leaves the name out of the request, which the brokers refuse.
func (s *Source) leaveForAWhile(ctx context.Context) {
	member, _ := s.client.GroupMetadata()
	_ = s.client.LeaveGroupContext(ctx) // what it says is that
	if member == "" {
		return // never joined
	}
	leave := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	leave.Group, leave.MemberID, leave.InstanceID = s.config.Group, member, &s.config.InstanceID
	leave.MemberEpoch = -2 // for a while: the partitions are kept for the next one of that name
	answer, err := leave.RequestWith(ctx, s.client)
	if err == nil {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) {
		s.log.Warn("the brokers don't know that this static member stops: the next one waits for the session time-out", zap.Error(err))
	}
}
