package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	commitInterval = time.Second
	// noPositions is committed beside a mark where there are no Positions.
	noPositions = "twinegress/2"
)

// commitment is what a commit says of a partition: where its next owner begins to
// read, and what Positions make of the text beside it.
type commitment struct {
	mark     kgo.EpochOffset
	metadata string
}

// nothing is no mark.
var nothing = kgo.EpochOffset{Epoch: -1, Offset: -1}

// committer commits the partitions' marks, each with the metadata of that moment, and
// only what has changed: a partition nothing of which is read is committed too when
// its metadata changes. The client's own commits (kgo.AutoCommitMarks) know no
// metadata, and don't commit a mark that didn't move.
//
// Nothing is committed for the sake of its age: while the group has members, the
// brokers keep what it has committed of topics that it reads. Once it has none,
// offsets.retention.minutes count for all of it, whenever it was committed.
//
// What keeps a commit from coming after the ownership has ended: the brokers refuse
// one of an earlier generation of the group, but they don't check who owns what, and
// the client sets the generation when the commit is its turn. So what has ended by
// then is left out (committing); what ends later can get an owner in a later
// generation only.
type committer struct {
	member     *member
	partitions *partitionSet
	positions  Positions // nil: none
	errors     commitErrors
	one        chan struct{} // has room for the commit that is under way
}

// run commits until ctx ends.
func (c *committer) run(ctx context.Context) {
	tick := time.NewTicker(commitInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = c.commit(ctx, c.partitions.all()) // c.errors has it
		case <-ctx.Done():
			return
		}
	}
}

// commit commits what has changed of partitions. It blocks no longer than ctx lasts,
// which the client does: while the group is joined, and for a broker that doesn't
// answer. What is left behind then is sent late or never: see committer.
func (c *committer) commit(ctx context.Context, partitions []*partition) error {
	return await(ctx, func() error {
		select {
		case c.one <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		defer func() { <-c.one }()
		return c.send(ctx, c.due(ctx, partitions))
	})
}

// round is one commit: of each partition what is to be said, and what failed.
type round struct {
	due    map[topicPartition]due
	failed map[topicPartition]error
}

type due struct {
	of *partition
	commitment
}

// due returns what has changed. Each mark is read before its metadata is composed:
// between the two more can only come to be behind the mark, or be listed though it
// was served.
func (c *committer) due(ctx context.Context, partitions []*partition) round {
	r := round{due: make(map[topicPartition]due), failed: make(map[topicPartition]error)}
	for _, p := range partitions {
		mark, ok := p.toCommit()
		if !ok {
			continue
		}
		next := commitment{mark, noPositions}
		if c.positions != nil {
			var err error
			if next.metadata, err = c.positions.Metadata(ctx, p.owned); err != nil {
				r.failed[p.topicPartition] = fmt.Errorf("who is behind can't be stored: %w", err)
				continue
			}
		}
		if p.changed(next) {
			r.due[p.topicPartition] = due{p, next}
		}
	}
	return r
}

// send commits what is due. The context of who waits doesn't end the request: that
// would close its connection, and the next commit, on another one, could overtake it.
// The client's end does.
func (c *committer) send(ctx context.Context, r round) error {
	offsets := make(map[string]map[int32]kgo.EpochOffset)
	for id, d := range r.due {
		if offsets[id.topic] == nil {
			offsets[id.topic] = make(map[int32]kgo.EpochOffset)
		}
		offsets[id.topic][id.number] = d.mark
	}
	if len(r.due) > 0 {
		sending := kgo.PreCommitFnContext(context.WithoutCancel(ctx), func(request *kmsg.OffsetCommitRequest) error {
			r.complete(request)
			return nil
		})
		c.member.client.CommitOffsetsSync(sending, offsets, func(_ *kgo.Client, request *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
			r.answered(request, answer, err, c.tooLong)
		})
	}
	if ctx.Err() == nil { // else nobody waits any more, and who did says so
		c.errors.handle(r.failed, len(r.due) > 0, time.Now())
	}
	return joined(r.failed)
}

// complete is called right before the request is sent: it adds the metadata, and
// leaves out what isn't owned any more.
func (r *round) complete(request *kmsg.OffsetCommitRequest) {
	for i := range request.Topics {
		topic := &request.Topics[i]
		topic.Partitions = slices.DeleteFunc(topic.Partitions, func(p kmsg.OffsetCommitRequestTopicPartition) bool {
			id := topicPartition{topic.Topic, p.Partition}
			if r.due[id].of.committing(request.MemberID) {
				return false
			}
			delete(r.due, id)
			return true
		})
		for j := range topic.Partitions {
			metadata := r.due[topicPartition{topic.Topic, topic.Partitions[j].Partition}].metadata
			topic.Partitions[j].Metadata = &metadata
		}
	}
	request.Topics = slices.DeleteFunc(request.Topics, func(topic kmsg.OffsetCommitRequestTopic) bool { return len(topic.Partitions) == 0 })
}

// answered notes what the brokers have taken. What they don't answer for is not known
// to be committed or not, and so is due again.
func (r *round) answered(request *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error, tooLong func(due)) {
	if err != nil {
		for id := range r.due {
			r.failed[id] = err
		}
		return
	}
	names := make(map[[16]byte]string, len(request.Topics)) // later brokers answer with ids
	for _, topic := range request.Topics {
		names[topic.TopicID] = topic.Topic
	}
	left := maps.Clone(r.due)
	for _, topic := range answer.Topics {
		name := topic.Topic
		if name == "" {
			name = names[topic.TopicID]
		}
		for _, p := range topic.Partitions {
			id := topicPartition{name, p.Partition}
			d, is := left[id]
			if !is {
				continue
			}
			delete(left, id)
			err := kerr.ErrorForCode(p.ErrorCode)
			switch {
			case err == nil:
				d.of.commitDone(d.commitment)
			case errors.Is(err, kerr.OffsetMetadataTooLarge):
				r.failed[id] = fmt.Errorf("offset.metadata.max.bytes is less than the %d that this copy needs: %w", len(d.metadata), err)
				tooLong(d)
			default:
				r.failed[id] = err
			}
		}
	}
	for id := range left {
		r.failed[id] = errNotAnswered
	}
}

func (c *committer) tooLong(d due) {
	if c.positions != nil {
		c.positions.TooLong(d.of.owned, d.metadata)
	}
}

var errNotAnswered = errors.New("the brokers' answer to a commit leaves the partition out")

// toCommit returns the mark, if one may be committed.
func (p *partition) toCommit() (mark kgo.EpochOffset, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marked, p.restored && p.marked.Offset >= 0 && p.state != ended
}

// changed reports whether a commit would say something new.
func (p *partition) changed(to commitment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.committed != to
}

// committing reports whether the ownership may be committed as this member of the group:
// not once it has ended. What is committed isn't known until the brokers answer.
//
// A copy that the group took for dead, and that comes back amid a rebalance, is another
// member without having lost anything. Somebody else may have had the partition
// meanwhile, and have committed more. If it is to be given up now nothing is committed;
// if this copy still has it at the next commit, it goes on.
func (p *partition) committing(member string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.state == ended:
		return false
	case p.member == member:
	case p.state >= draining || p.rejoined != member:
		p.rejoined = member
		return false
	default:
		p.member = member
	}
	p.committed = commitment{mark: nothing}
	return true
}

// commitDone records what the brokers have taken.
func (p *partition) commitDone(c commitment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = c
}
