package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"
)

const (
	// rebalancePause is how long commits may be refused as those of a member that has to
	// join again: that is how a rebalance goes.
	rebalancePause = 10 * time.Second
	// commitErrorInterval is how often it is said again what fails.
	commitErrorInterval = 10 * time.Minute
)

// commitErrors says what of the commits fails: each cause once, and rarely again
// while it lasts. It is the goroutine's that commits.
type commitErrors struct {
	log     *zap.Logger
	contact *contact
	causes  map[string]*cause // of the last round
}

// cause is why partitions are not committed.
type cause struct {
	since, logged time.Time
}

// handle is called with what one round of commits has failed for, and whether
// something was committed in it.
func (c *commitErrors) handle(failed map[topicPartition]error, committed bool, now time.Time) {
	was := c.causes
	c.causes = make(map[string]*cause)
	for _, f := range byCause(failed) {
		text := f.err.Error()
		w := was[text]
		if w == nil {
			w = &cause{since: now}
		}
		c.causes[text] = w
		if rebalances(f.err) && now.Sub(w.since) < rebalancePause {
			continue
		}
		c.contact.commitFailed(f.err, now)
		if !w.logged.IsZero() && now.Sub(w.logged) < commitErrorInterval {
			continue
		}
		w.logged = now
		c.log.Error("committing failed, which is tried again: after a restart all that came since is repeated",
			zap.String("partitions", f.names()), zap.Duration("for", now.Sub(w.since).Round(time.Second)), zap.Error(f.err))
	}
	if len(failed) > 0 || !committed {
		return
	}
	c.contact.commitSucceeded()
	for _, w := range was {
		if !w.logged.IsZero() {
			c.log.Info("commits succeed again", zap.Duration("off", now.Sub(w.since).Round(time.Second)))
			break
		}
	}
}

// rebalances reports whether an error is one that every rebalance may bring.
func rebalances(err error) bool {
	return slices.ContainsFunc([]error{
		kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.StaleMemberEpoch, kerr.FencedMemberEpoch,
	}, func(of error) bool { return errors.Is(err, of) })
}

// failure of commits, and the partitions that have it.
type commitFailure struct {
	err        error
	partitions []topicPartition
}

// byCause groups failures by what they say.
func byCause(failed map[topicPartition]error) []commitFailure {
	causes := make(map[string]commitFailure)
	for id, err := range failed {
		f := causes[err.Error()]
		causes[err.Error()] = commitFailure{err, append(f.partitions, id)}
	}
	return slices.SortedFunc(maps.Values(causes), func(a, b commitFailure) int {
		return cmp.Compare(a.err.Error(), b.err.Error())
	})
}

// names returns the partitions by topic.
func (f *commitFailure) names() string {
	sortPartitions(f.partitions)
	names := make(partitionNames)
	for _, id := range f.partitions {
		names[id.topic] = append(names[id.topic], id.number)
	}
	return names.String()
}

// joined returns what failed as one error; nil if nothing did.
func joined(failed map[topicPartition]error) error {
	causes := byCause(failed)
	all := make([]error, 0, len(causes))
	for _, f := range causes {
		all = append(all, fmt.Errorf("%s: %w", f.names(), f.err))
	}
	return errors.Join(all...)
}
