package catchup

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/untrusted"
)

const (
	// noticeFor is how long a loss is shown, and maxLosses how many are.
	noticeFor = 24 * time.Hour
	maxLosses = 20
)

// loss is a list, or a part of one, that is gone.
type loss struct {
	of        partitionID
	committed int64
	why       string
	at        time.Time
}

// lose records that it isn't known any more who was behind in a partition.
func (k *Keeper) lose(of partitionID, committed int64, why string) {
	why = untrusted.Text(why)
	k.mu.Lock()
	k.lost++
	if len(k.losses) == maxLosses {
		k.losses = slices.Delete(k.losses, 0, 1)
	}
	k.losses = append(k.losses, loss{of, committed, why, time.Now()})
	k.mu.Unlock()
	k.options.Log.Error("it isn't known who was behind in a partition: endpoints may miss events before the committed offset; `twinegress endpoints seek` sends them again",
		zap.String("topic", of.topic), zap.Int32("partition", of.number), zap.Int64("offset", committed), zap.String("reason", why))
}

// KeeperStatus is how positions are kept.
type KeeperStatus struct {
	StoreFailures uint64 // records that the topic didn't take
	Lost          uint64 // partitions of which it was not known any more who was behind
	Unlisted      uint64 // positions that there is no room for: without a topic
	// Waiting are partitions, as topic/number, that are not read because the list of who
	// is behind in them can't be.
	Waiting []string
	// Notes are what is wrong, in words.
	Notes []string
	// Groups is why Kafka's tools don't see all of it, in words: no trouble of this
	// program.
	Groups []string
}

// Status returns how positions are kept.
func (k *Keeper) Status() KeeperStatus {
	var s KeeperStatus
	now := time.Now()
	k.mu.Lock()
	s.Lost = k.lost
	for _, l := range k.losses {
		if now.Sub(l.at) < noticeFor {
			s.Notes = append(s.Notes, fmt.Sprintf("since %s it isn't known who was behind in %v; endpoints may miss events before offset %d, and a seek sends them again: %s",
				l.at.UTC().Format(time.RFC3339), l.of, l.committed, l.why))
		}
	}
	if k.seekProblem != "" {
		s.Notes = append(s.Notes, "waiting for Kafka: "+k.seekProblem)
	}
	k.mu.Unlock()
	for _, p := range k.all() {
		if problem := p.problemNow(); problem != "" {
			s.Waiting = append(s.Waiting, p.of.String())
			s.Notes = append(s.Notes, fmt.Sprintf("%v is not read: it waits for the list of who is behind in it: %s", p.of, problem))
		}
		s.Unlisted += p.unlisted.Load()
	}
	if s.Unlisted > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("%d positions don't fit into commits, and would be lost with this copy: set positions.topic", s.Unlisted))
	}
	if k.store != nil {
		failures, failed := k.store.failing()
		s.StoreFailures = failures
		if failed != nil {
			s.Notes = append(s.Notes, "positions can't be stored: "+untrusted.Text(failed.Error()))
		}
	}
	if k.groups != nil {
		s.Groups = k.groups.notes()
	}
	slices.Sort(s.Waiting)
	slices.SortFunc(s.Notes, strings.Compare)
	return s
}
