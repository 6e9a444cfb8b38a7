package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

const (
	// errorInterval is how often the same error of the same partition is logged.
	errorInterval = 10 * time.Second
	// topicTimeout is how long a topic may be unknown. It is so for a moment
	// after it was created, until its brokers know it; one that stays unknown
	// is another topic by now.
	topicTimeout = 10 * time.Second
	// instanceTimeout is more than the brokers' default for how long they keep
	// the place of a member of the consumer protocol that has crashed, 45 s.
	instanceTimeout = time.Minute
)

// fatalError ends a consumer: nothing gets better by waiting.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

// fatalErrors has room for the first fatal error, which ends Run.
type fatalErrors chan fatalError

func (f fatalErrors) report(err error) {
	select {
	case f <- fatalError{err}:
	default: // the first one is enough
	}
}

// fetchErrors handles errors of polls. It belongs to the polling goroutine.
type fetchErrors struct {
	log *zap.Logger
	// obstacle handles an error that the client doesn't get past by itself, and
	// reports whether that is all there is to do.
	obstacle func(kgo.FetchError) bool
	fatal    fatalErrors
	contact  *contact
	logged   map[string]time.Time // by partition and error
	unknown  map[string]time.Time // since when the brokers don't know a topic
}

func newFetchErrors(fatal fatalErrors, c *contact, obstacle func(kgo.FetchError) bool, log *zap.Logger) fetchErrors {
	return fetchErrors{
		log: log, obstacle: obstacle, fatal: fatal, contact: c,
		logged: make(map[string]time.Time), unknown: make(map[string]time.Time),
	}
}

// handle handles the errors of a poll, and reports whether there were some.
func (f *fetchErrors) handle(fetches kgo.Fetches, now time.Time) (failed bool) {
	if len(f.unknown) > 0 {
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				delete(f.unknown, p.Topic)
			}
		})
	}
	for _, e := range fetches.Errors() {
		var group *kgo.ErrGroupSession
		if errors.As(e.Err, &group) || e.Topic == "" {
			continue // membership's, or a poll that was ended
		}
		failed = true
		if !f.obstacle(e) {
			f.record(e, now)
		}
	}
	return failed
}

// record logs an error, and reports it as fatal if it is one.
func (f *fetchErrors) record(e kgo.FetchError, now time.Time) {
	f.contact.failed(e.Topic, e.Err, now)
	key := fmt.Sprint(e.Topic, "/", e.Partition, " ", e.Err)
	if now.Sub(f.logged[key]) >= errorInterval {
		f.logged[key] = now
		f.log.Error("reading from Kafka failed; it is tried again",
			zap.String("topic", e.Topic), zap.Int32("partition", e.Partition), zap.Error(e.Err))
	}
	if !errors.Is(e.Err, kerr.UnknownTopicID) {
		return
	}
	since, ok := f.unknown[e.Topic]
	if !ok {
		f.unknown[e.Topic] = now
		return
	}
	if now.Sub(since) < topicTimeout {
		return
	}
	// The client never takes the new topic for the old one, whose offsets mean
	// nothing in it; a new process starts with it as with any topic.
	f.fatal.report(fmt.Errorf("the topic %s was deleted, and perhaps made anew, while it was read: start again to read the new one: %w", e.Topic, e.Err))
}

// membership is a hook of the client for errors of the group membership. The
// client retries by itself for ever; an error that can't be retried ends Run.
type membership struct {
	config     config.Ingest
	log        *zap.Logger
	fatal      fatalErrors
	contact    *contact
	takenSince time.Time // since when another member has our instanceId
}

// OnGroupManageError implements kgo.HookGroupManageError.
func (m *membership) OnGroupManageError(err error) {
	if errors.Is(err, kgo.ErrClientClosed) {
		return // Close returns what came of it
	}
	m.contact.rejected(err)
	if fatal := m.classify(err, time.Now()); fatal != nil {
		m.fatal.report(fatal)
		return
	}
	level := zap.ErrorLevel
	if errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.RebalanceInProgress) {
		level = zap.WarnLevel // the group went on without this copy, such as in an outage: it joins anew
	}
	m.log.Log(level, "not a member of the consumer group, so nothing is read; joining is tried again",
		zap.String("group", m.config.Group), zap.Error(err))
}

// classify returns the error to end with if retrying is of no use.
func (m *membership) classify(err error, now time.Time) error {
	id := m.config.InstanceID
	switch {
	case errors.Is(err, kerr.FencedInstanceID):
		return fmt.Errorf("this copy has no place in the consumer group %s: another one with ingest.instanceId %q has taken it; every copy needs an id of its own: %w",
			m.config.Group, id, err)
	case errors.Is(err, kerr.InvalidSessionTimeout):
		return fmt.Errorf("this copy has no place in the consumer group %s: ingest.sessionTimeout %v is outside of what the brokers allow (group.min.session.timeout.ms to group.max.session.timeout.ms): %w",
			m.config.Group, m.config.SessionTimeout, err)
	case !errors.Is(err, kerr.UnreleasedInstanceID):
		m.takenSince = time.Time{}
		return nil
	}
	// The id is also taken after a crash, until the broker expels our former self.
	if m.takenSince.IsZero() {
		m.takenSince = now
	}
	if now.Sub(m.takenSince) <= instanceTimeout {
		return nil
	}
	return fmt.Errorf("this copy has no place in the consumer group %s: another one with ingest.instanceId %q has had it for %v; every copy needs an id of its own: %w",
		m.config.Group, id, instanceTimeout, err)
}
