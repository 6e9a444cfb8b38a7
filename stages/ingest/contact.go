package ingest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/untrusted"
)

// maxSilence is how long no broker may answer before that is called an outage.
// They are asked all the time, also while nothing is polled: for the partitions'
// ends every offsetsInterval, and by heartbeats. Of the session time-out, after
// which the group gives a copy up, it is the lesser: 45 s are long for who is on call.
const maxSilence = 2 * offsetsInterval

// Reading that fails is tried again at once, and mostly succeeds: a partition has
// moved. It fails for good after failingPatience, such as for want of a right. It
// does no more after failingPause without an error: nobody says when it succeeds,
// since there may be nothing to read.
const failingPatience, failingPause = 5 * time.Second, 10 * time.Second

// contact knows when a broker answered last, and whether the group has this copy
// for a member. It is a hook of the client. The client's own metadata of the group
// doesn't tell: it stays what it was when the brokers refuse a heartbeat.
type contact struct {
	patience time.Duration
	begun    time.Time
	heard    atomic.Int64 // nanoseconds after begun; 0: never
	isMember atomic.Bool

	quietSince time.Time // watch's caller's: since when no broker answers; zero: one does

	mu      sync.Mutex
	refused time.Time // since when the group doesn't have this copy; zero: it does, or never had
	refusal string
	noTopic string // an ingest topic that doesn't exist
	reading failure
	commits failure
}

// failure is of reading or committing, which is tried again and again.
type failure struct {
	since, last time.Time
	text        string
}

func newContact(sessionTimeout time.Duration) *contact {
	return &contact{patience: min(maxSilence, sessionTimeout), begun: time.Now()}
}

// OnBrokerRead implements kgo.HookBrokerRead. A broker that is frozen, or whose
// network is, lets the client write for long; nothing but an answer counts.
func (c *contact) OnBrokerRead(_ kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	if err == nil {
		c.heard.Store(int64(time.Since(c.begun)))
	}
}

// joined is called when the group has assigned partitions to this copy, or none. It
// returns for how long the group had not had this copy; 0 if it had, or never yet.
func (c *contact) joined() (out time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isMember.Store(true)
	if !c.refused.IsZero() {
		out = time.Since(c.refused)
	}
	c.refused, c.refusal = time.Time{}, ""
	return out
}

// rejected is called when the membership fails; the client tries to join again.
func (c *contact) rejected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isMember.Store(false)
	if c.refused.IsZero() {
		c.refused = time.Now()
	}
	c.refusal = untrusted.Text(err.Error())
}

// missingTopic is called with the ingest topic that doesn't exist; "" if all do.
func (c *contact) missingTopic(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noTopic = name
}

// failed is called with each error of reading that is none of the group's.
func (c *contact) failed(topic string, err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading.again(fmt.Sprintf("of the ingest topic %s: %s", topic, untrusted.Text(err.Error())), now)
}

// commitFailed is called with each error of a commit.
func (c *contact) commitFailed(err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commits.again("so that a restart repeats what came since: "+untrusted.Text(err.Error()), now)
}

// commitSucceeded is called when a commit has no error.
func (c *contact) commitSucceeded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commits = failure{}
}

func (f *failure) again(text string, now time.Time) {
	if now.Sub(f.last) > failingPause {
		f.since = now
	}
	f.last, f.text = now, text
}

// sentence says what fails; "" if it doesn't, or not for long.
func (f *failure) sentence(what string, now time.Time) string {
	if lasts := now.Sub(f.since); lasts >= failingPatience && now.Sub(f.last) <= failingPause {
		return fmt.Sprintf("%s fails for %v, %s", what, lasts.Round(time.Second), f.text)
	}
	return ""
}

// heardAt returns when a broker answered last; zero if none has.
func (c *contact) heardAt() time.Time {
	if after := c.heard.Load(); after > 0 {
		return c.begun.Add(time.Duration(after))
	}
	return time.Time{}
}

// silence returns for how long no broker has answered, and whether that is too long.
func (c *contact) silence() (d time.Duration, long bool) {
	d = time.Since(c.begun) - time.Duration(c.heard.Load())
	return d, d > c.patience
}

// watch logs that no broker answers any more, and that one does again. The client logs
// neither when a broker freezes. Only one goroutine may call it.
func (c *contact) watch(log *zap.Logger) {
	switch d, long := c.silence(); {
	case long && c.quietSince.IsZero():
		c.quietSince = time.Now().Add(-d)
		log.Error("no Kafka broker answers: nothing is read, and nothing committed, until one does", zap.Duration("for", d))
	case !long && !c.quietSince.IsZero():
		log.Info("Kafka brokers answer again", zap.Duration("off", c.heardAt().Sub(c.quietSince)))
		c.quietSince = time.Time{}
	}
}

// missing says what the source lacks to read; nothing if it can.
func (c *contact) missing(group string) (missing []string) {
	d, long := c.silence()
	switch {
	case c.heard.Load() == 0:
		missing = append(missing, fmt.Sprintf("no Kafka broker has answered yet, for %v", d.Round(time.Second)))
	case long:
		missing = append(missing, fmt.Sprintf("no Kafka broker has answered for %v", d.Round(time.Second)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.noTopic != "":
		return append(missing, fmt.Sprintf("the ingest topic %s does not exist", c.noTopic))
	case c.isMember.Load():
		now := time.Now()
		for _, fails := range []string{c.reading.sentence("reading", now), c.commits.sentence("committing", now)} {
			if fails != "" {
				missing = append(missing, fails)
			}
		}
		return missing
	case c.refused.IsZero():
		return append(missing, fmt.Sprintf("the consumer group %q is not joined yet, for %v", group, time.Since(c.begun).Round(time.Second)))
	}
	return append(missing, fmt.Sprintf("not a member of the consumer group %q for %v: %s",
		group, time.Since(c.refused).Round(time.Second), c.refusal))
}
