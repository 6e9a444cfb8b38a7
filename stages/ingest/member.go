package ingest

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

const (
	heartbeatInterval = 3 * time.Second // Kafka's default
	// metadataAge is how soon added partitions are noticed with the classic
	// protocol, where that is the members' business; Kafka's default is five minutes.
	metadataAge = 30 * time.Second
)

// groupOptions returns the options of a client that is a member of the group.
// start is where a new group begins.
func groupOptions(c config.Ingest, start kgo.Offset) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.ConsumerGroup(c.Group),
		kgo.ConsumeTopics(c.Topics...),
		kgo.ConsumeStartOffset(start),
		// An offset that the brokers don't have is seeker's: the client's own answers
		// are one for all, such as to start over.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.MetadataMaxAge(metadataAge),
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.RebalanceTimeout(c.RebalanceTimeout),
		// A member learns of a rebalance by a heartbeat: in time to take part.
		kgo.HeartbeatInterval(min(heartbeatInterval, c.SessionTimeout/3, c.RebalanceTimeout/3)),
		// Offsets that have no event: the watermark must get past them, or the
		// lag of a topic that is written in transactions would never be 0.
		kgo.KeepControlRecords(),
		// The client commits nothing by itself (committer does). It isn't told so with
		// kgo.DisableAutoCommit, since it moves only partitions of which it knows an
		// offset, and without that option seeker can mark one.
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(math.MaxInt64),
	}
	if c.Protocol == config.ProtocolConsumer {
		// The brokers assign; the balancer named here only says in which way.
		opts = append(opts, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if c.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(c.InstanceID))
	}
	return opts
}

// member is the Kafka client, as a member of the consumer group.
type member struct {
	config config.Ingest
	client *kgo.Client
	log    *zap.Logger
}

// OnNewClient implements kgo.HookNewClient. The client calls it before it
// starts a goroutine, and so before any callback needs the client: it joins the
// group on its own, without waiting for a poll.
func (m *member) OnNewClient(client *kgo.Client) { m.client = client }

// id is what the group calls this copy now; "" before it has joined.
func (m *member) id() string {
	if m.client == nil {
		return ""
	}
	id, _ := m.client.GroupMetadata()
	return id
}

func (m *member) pause(of topicPartition) {
	m.client.PauseFetchPartitions(map[string][]int32{of.topic: {of.number}})
}

func (m *member) resume(of topicPartition) {
	m.client.ResumeFetchPartitions(map[string][]int32{of.topic: {of.number}})
}

// await calls f, which asks the brokers, and returns its error, or ctx's if that
// ends first. The client doesn't end a request with its context while it connects
// for it. What is left behind then ends with the client, at the latest.
func await(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leaveTemporarily leaves the group as a static member of the consumer protocol
// does that will come back: the next one of its name gets its place at once and
// not after the session time-out. The client (v1.22) does that itself, but
// leaves the name out of the request, which the brokers refuse.
func (m *member) leaveTemporarily(ctx context.Context) {
	id, _ := m.client.GroupMetadata()
	_ = m.client.LeaveGroupContext(ctx) // its error is that refusal
	if id == "" {
		return // never joined
	}
	leave := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	leave.Group, leave.MemberID, leave.InstanceID = m.config.Group, id, &m.config.InstanceID
	leave.MemberEpoch = -2 // temporarily: the partitions are kept for the next one of that name
	answer, err := leave.RequestWith(ctx, m.client)
	if err == nil {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) {
		m.log.Warn("the brokers don't know that this static member stops: the next one waits for the session time-out", zap.Error(err))
	}
}
