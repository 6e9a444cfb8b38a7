package deadletter

import (
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"twinegress/internal/event"
)

// patience is for how long a topic that is missing, or may not be written to, is
// waited for. It is long enough for an alert to be read and a right to be given,
// and ends before the partitions that wait are what everybody is paged for: their
// good events are worth more than what can't be set aside.
const patience = 15 * time.Minute

// fault is whose fault a refusal is, and so what follows.
type fault uint8

const (
	// ofBrokers, which may come back: the letter is tried again for ever.
	ofBrokers fault = iota
	// ofTopic, which is missing or closed to this client: the letter is tried
	// again for patience, then given up.
	ofTopic
	// ofLetter, which can never be stored as it is: it is tried with less of it,
	// and given up if the least of it is refused too.
	ofLetter
)

// refusal is why a letter isn't stored. Its reason is among those of a dropped
// event, for the metric.
type refusal struct {
	fault  fault
	reason event.Reason
	needed string // what the reader can do
}

const (
	neededToWrite  = "the right Write on the topic, which includes Describe"
	neededTopic    = "the topic that deadLetter.topic names"
	neededRoom     = "a larger max.message.bytes of the topic"
	neededSettings = "a topic that takes any record: not compacted, and without rules for what is written"
)

// refusals has every refusal after which a letter doesn't wait for ever. What is
// not in it is a broker's or the network's, and may pass: no leader, too few
// replicas, time-outs, connections, log-ins, quotas.
var refusals = map[*kerr.Error]refusal{
	kerr.MessageTooLarge:    {ofLetter, event.TooLarge, neededRoom}, // the client's word for over 100 MiB, too
	kerr.RecordListTooLarge: {ofLetter, event.TooLarge, neededRoom},

	kerr.InvalidRecord:               {ofLetter, event.Rejected, neededSettings},
	kerr.CorruptMessage:              {ofLetter, event.Rejected, neededSettings}, // what old brokers say of a record without a key in a compacted topic
	kerr.InvalidTimestamp:            {ofLetter, event.Rejected, neededSettings},
	kerr.PolicyViolation:             {ofLetter, event.Rejected, neededSettings},
	kerr.UnsupportedForMessageFormat: {ofLetter, event.Rejected, neededSettings},
	kerr.UnsupportedCompressionType:  {ofLetter, event.Rejected, neededSettings},

	kerr.TopicAuthorizationFailed:   {ofTopic, event.Unauthorized, neededToWrite},
	kerr.ClusterAuthorizationFailed: {ofTopic, event.Unauthorized, neededToWrite}, // a producer id, refused after the start
	kerr.UnknownTopicOrPartition:    {ofTopic, event.Unreachable, neededTopic},
	kerr.UnknownTopicID:             {ofTopic, event.Unreachable, neededTopic}, // made anew
	kerr.InvalidTopicException:      {ofTopic, event.Unreachable, neededTopic},
}

func refusalOf(err error) refusal {
	if broker, ok := errors.AsType[*kerr.Error](err); ok {
		return refusals[broker]
	}
	return refusal{}
}

// outage is for how long the topic has been refusing. It is the topic's and not
// a letter's: were each letter waited for on its own, what comes after a right
// is taken away for good would trickle.
type outage struct {
	patience time.Duration // shorter in tests

	mu          sync.Mutex
	since, last time.Time // of its refusals
}

// outlasts notes a refusal and reports whether there was nothing else for longer
// than patience. A refusal after a pause of that length begins a new outage.
func (o *outage) outlasts(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() || now.Sub(o.last) > patience {
		o.since = now
	}
	o.last = now
	return now.Sub(o.since) > o.patience
}

// over notes that a letter was stored.
func (o *outage) over() {
	o.mu.Lock()
	o.since = time.Time{}
	o.mu.Unlock()
}
