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

// fatalError is why a consumer gives up by itself: nothing gets better by waiting.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

// membership is a hook of the client that hears why the group does without
// this copy. The client tries again by itself for ever; what can't get better
// by that ends Run.
type membership struct {
	config config.Ingest
	log    *zap.Logger
	fatal  chan<- fatalError
	held   time.Time // since when somebody else has our instanceId
}

func newMembership(c config.Ingest, fatal chan<- fatalError, log *zap.Logger) membership {
	return membership{config: c, log: log, fatal: fatal}
}

// OnGroupManageError is kgo.HookGroupManageError's.
func (m *membership) OnGroupManageError(err error) {
	if errors.Is(err, kgo.ErrClientClosed) {
		return // Close did, and says itself what came of it
	}
	fatal := m.judge(err, time.Now())
	if fatal == nil {
		m.log.Error("not a member of the consumer group, so nothing is read; joining is tried again",
			zap.String("group", m.config.Group), zap.Error(err))
		return
	}
	select {
	case m.fatal <- fatalError{fatal}:
	default: // one is enough
	}
}

// judge gives the error to end with, if there is no use in trying again.
func (m *membership) judge(err error, now time.Time) error {
	id := m.config.InstanceID
	switch {
	case errors.Is(err, kerr.FencedInstanceID):
		return fmt.Errorf("this copy has no place in the consumer group %s: another one with ingest.instanceId %q has taken it; every copy needs an id of its own: %w",
			m.config.Group, id, err)
	case errors.Is(err, kerr.UnreleasedInstanceID):
		// So it is also after a crash, until the broker gives up our former self.
		if m.held.IsZero() {
			m.held = now
		}
		if now.Sub(m.held) > instancePatience {
			return fmt.Errorf("this copy has no place in the consumer group %s: another one with ingest.instanceId %q has had it for %v; every copy needs an id of its own: %w",
				m.config.Group, id, instancePatience, err)
		}
	case errors.Is(err, kerr.InvalidSessionTimeout):
		return fmt.Errorf("this copy has no place in the consumer group %s: ingest.sessionTimeout %v is outside of what the brokers allow (group.min.session.timeout.ms to group.max.session.timeout.ms): %w",
			m.config.Group, m.config.SessionTimeout, err)
	}
	if !errors.Is(err, kerr.UnreleasedInstanceID) {
		m.held = time.Time{}
	}
	return nil
}

// instancePatience is more than the brokers' default for how long they keep
// the place of a member of the consumer protocol that has crashed, 45 s.
const instancePatience = time.Minute
