package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

const (
	repeatTrouble = 10 * time.Second // the same error of the same partition is logged that often
	// A topic is unknown for a moment after it was created, until its brokers
	// have heard of it; one that stays unknown is another topic by now.
	topicPatience = 10 * time.Second
)

// trouble is what goes wrong while reading. It is the polling goroutine's own.
type trouble struct {
	log    *zap.Logger
	fatal  chan<- fatalError
	logged map[string]time.Time // by partition and error
	gone   map[string]time.Time // topics that the brokers don't know any more, since when
}

func newTrouble(fatal chan<- fatalError, log *zap.Logger) trouble {
	return trouble{log: log, fatal: fatal, logged: make(map[string]time.Time), gone: make(map[string]time.Time)}
}

// hear looks at the errors of a poll; true if there were some.
func (t *trouble) hear(fetches kgo.Fetches, now time.Time) (heard bool) {
	if len(t.gone) > 0 {
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				delete(t.gone, p.Topic)
			}
		})
	}
	for _, e := range fetches.Errors() {
		var group *kgo.ErrGroupSession
		if errors.As(e.Err, &group) || e.Topic == "" {
			continue // membership's, or a poll that ended
		}
		heard = true
		t.note(e, now)
	}
	return heard
}

func (t *trouble) note(e kgo.FetchError, now time.Time) {
	key := fmt.Sprint(e.Topic, "/", e.Partition, " ", e.Err)
	if now.Sub(t.logged[key]) >= repeatTrouble {
		t.logged[key] = now
		t.log.Error("reading from Kafka failed; it is tried again",
			zap.String("topic", e.Topic), zap.Int32("partition", e.Partition), zap.Error(e.Err))
	}
	if !errors.Is(e.Err, kerr.UnknownTopicID) {
		return
	}
	since, ok := t.gone[e.Topic]
	if !ok {
		t.gone[e.Topic] = now
		return
	}
	if now.Sub(since) < topicPatience {
		return
	}
	// The client never takes the new one for the old one, whose offsets mean
	// nothing in it; a new process starts with it as with any topic.
	select {
	case t.fatal <- fatalError{fmt.Errorf("the topic %s was deleted, and perhaps made anew, while it was read: start again to read the new one: %w", e.Topic, e.Err)}:
	default: // one is enough
	}
}
