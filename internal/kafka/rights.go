package kafka

import (
	"context"
	"errors"
	"math"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Operation is an operation on a topic, by its name in Kafka's access lists.
type Operation string

var operations = map[Operation]kmsg.ACLOperation{
	"Read":            kmsg.ACLOperationRead,
	"Write":           kmsg.ACLOperationWrite,
	"DescribeConfigs": kmsg.ACLOperationDescribeConfigs,
}

// ErrNotSaid means that the brokers don't say whether a right is there, as those
// before Kafka 2.3 don't.
var ErrNotSaid = errors.New("these brokers don't say which rights there are")

// Rights finds out what the user of a connection may do. It changes nothing: each
// right is asked for, or tried with a request that comes to nothing.
type Rights struct {
	client *kgo.Client
	admin  *kadm.Client
	topics map[string]kmsg.MetadataResponseTopic
}

// OpenRights connects with the options of Connect, and looks the topics up.
func OpenRights(ctx context.Context, connect []kgo.Opt, topics ...string) (*Rights, error) {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return nil, err
	}
	r := &Rights{client: client, admin: kadm.NewClient(client), topics: make(map[string]kmsg.MetadataResponseTopic)}
	if err = client.Ping(ctx); err == nil {
		err = r.lookUp(ctx, topics)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return r, nil
}

// lookUp does without kadm, where one topic that must not be seen hides all.
func (r *Rights) lookUp(ctx context.Context, topics []string) error {
	request := kmsg.NewPtrMetadataRequest()
	request.AllowAutoTopicCreation = false
	request.IncludeTopicAuthorizedOperations = true
	for _, name := range topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(name)
		request.Topics = append(request.Topics, topic)
	}
	response, err := request.RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	for _, topic := range response.Topics {
		if topic.Topic != nil {
			r.topics[*topic.Topic] = topic
		}
	}
	return nil
}

// Close ends the connection.
func (r *Rights) Close() { r.client.Close() }

// Topic returns nil if the operation is allowed on a topic that was looked up. The
// brokers say so along with the topic (KIP-430).
func (r *Rights) Topic(name string, operation Operation) error {
	topic, known := r.topics[name]
	if !known {
		return ErrNotSaid
	}
	if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
		return err
	}
	switch allowed := topic.AuthorizedOperations; {
	case allowed == math.MinInt32, allowed == 0:
		// The protocol's "not said"; and that of brokers who fill nothing in: whoever
		// sees the topic may at least describe it.
		return ErrNotSaid
	case allowed&(1<<operations[operation]) == 0:
		return kerr.TopicAuthorizationFailed
	}
	return nil
}

// IsMissing reports whether an error of Topic means that there is no such topic.
func IsMissing(err error) bool { return errors.Is(err, kerr.UnknownTopicOrPartition) }

// IsRefused reports whether an error means that a right is not there.
func IsRefused(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) ||
		errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.TransactionalIDAuthorizationFailed)
}

// CreateTopic returns nil if a topic of that name could be created: the brokers
// check the request and don't carry it out.
func (r *Rights) CreateTopic(ctx context.Context, name string) error {
	response, err := r.admin.ValidateCreateTopics(ctx, -1, -1, nil, name)
	if err != nil {
		return err
	}
	return response[name].Err
}

// Group returns nil if Read is allowed on a group: by the heartbeat of a member
// that the group doesn't have.
func (r *Rights) Group(ctx context.Context, name string) error {
	request := kmsg.NewPtrHeartbeatRequest()
	request.Group, request.MemberID, request.Generation = name, "twinegress-check", -1
	response, err := request.RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	return refusal(response.ErrorCode, kerr.GroupAuthorizationFailed)
}

// GroupDelete returns nil if Delete is allowed on a group: by the deletion of none of its
// offsets.
func (r *Rights) GroupDelete(ctx context.Context, name string) error {
	request := kmsg.NewPtrOffsetDeleteRequest()
	request.Group = name
	response, err := request.RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	return refusal(response.ErrorCode, kerr.GroupAuthorizationFailed)
}

// IdempotentWrite returns nil if the brokers give out a producer id.
func (r *Rights) IdempotentWrite(ctx context.Context) error {
	request := kmsg.NewPtrInitProducerIDRequest()
	response, err := request.RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(response.ErrorCode)
}

// Transaction returns nil if Write is allowed on a transactional id: by the end of
// a transaction whose producer the id doesn't have.
func (r *Rights) Transaction(ctx context.Context, id string) error {
	request := kmsg.NewPtrEndTxnRequest()
	request.TransactionalID, request.ProducerID, request.ProducerEpoch = id, math.MaxInt64, 0
	response, err := request.RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	return refusal(response.ErrorCode, kerr.TransactionalIDAuthorizationFailed)
}

// refusal returns the error of a code if it is the refusal of a right. Any other
// answer comes after the right was looked at.
func refusal(code int16, refused *kerr.Error) error {
	if err := kerr.ErrorForCode(code); errors.Is(err, refused) {
		return err
	}
	return nil
}
