package ingest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/config"
)

// Which membership errors are fatal, and from when on.
func TestMembership(t *testing.T) {
	tests := map[string]struct {
		errs  []error
		times []time.Duration
		fatal string
	}{
		"fenced":                 {[]error{kerr.FencedInstanceID}, []time.Duration{0}, `ingest.instanceId "pod-0" has taken it`},
		"session time-out":       {[]error{kerr.InvalidSessionTimeout}, []time.Duration{0}, "ingest.sessionTimeout 45s is outside"},
		"taken for a while":      {[]error{kerr.UnreleasedInstanceID, kerr.UnreleasedInstanceID}, []time.Duration{0, 50 * time.Second}, ""},
		"taken for too long":     {[]error{kerr.UnreleasedInstanceID, kerr.UnreleasedInstanceID}, []time.Duration{0, 61 * time.Second}, "has had it for 1m0s"},
		"taken again":            {[]error{kerr.UnreleasedInstanceID, kerr.NotCoordinator, kerr.UnreleasedInstanceID}, []time.Duration{0, 50 * time.Second, 70 * time.Second}, ""},
		"the coordinator is off": {[]error{kerr.CoordinatorNotAvailable}, []time.Duration{0}, ""},
		"not allowed, yet":       {[]error{kerr.GroupAuthorizationFailed}, []time.Duration{0}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := config.Default().Ingest
			c.InstanceID = "pod-0"
			m := membership{config: c, log: zap.NewNop()}
			var err error
			for i := range test.errs {
				err = m.classify(fmt.Errorf("joining: %w", test.errs[i]), time.Unix(0, 0).Add(test.times[i]))
			}
			switch {
			case test.fatal == "" && err != nil:
				t.Errorf("ends with %v", err)
			case test.fatal != "" && (err == nil || !strings.Contains(err.Error(), test.fatal)):
				t.Errorf("ends with %v, want %q", err, test.fatal)
			}
		})
	}
}

// An error of a partition is logged at intervals; an unknown topic is fatal
// once it stays unknown, and not if records of it come in between.
func TestFetchErrors(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	fatal := make(fatalErrors, 1)
	f := newFetchErrors(fatal, newContact(time.Minute), func(kgo.FetchError) bool { return false }, zap.New(core))
	poll := func(at time.Duration, topic string, err error, records ...*kgo.Record) (failed bool) {
		return f.handle(kgo.Fetches{{Topics: []kgo.FetchTopic{{
			Topic: topic, Partitions: []kgo.FetchPartition{{Err: err, Records: records}},
		}}}}, time.Unix(0, 0).Add(at))
	}
	for _, step := range []struct {
		at      time.Duration
		err     error
		records []*kgo.Record
		failed  bool
		logged  int
		fatal   bool
	}{
		{at: 0, err: kerr.UnknownTopicID, failed: true, logged: 1},
		{at: 9 * time.Second, err: kerr.UnknownTopicID, failed: true, logged: 1},
		{at: 9 * time.Second, records: []*kgo.Record{{}}, logged: 1},
		{at: 11 * time.Second, err: kerr.UnknownTopicID, failed: true, logged: 2},
		{at: 20 * time.Second, err: kerr.NotLeaderForPartition, failed: true, logged: 3},
		{at: 20 * time.Second, err: &kgo.ErrGroupSession{Err: errors.New("membership's")}, logged: 3},
		{at: 21 * time.Second, err: kerr.UnknownTopicID, failed: true, logged: 4, fatal: true},
	} {
		if failed := poll(step.at, topic, step.err, step.records...); failed != step.failed || logs.Len() != step.logged || len(fatal) > 0 != step.fatal {
			t.Errorf("failed %t, logged %d, fatal %d, want %+v", failed, logs.Len(), len(fatal), step)
		}
	}
	if err := <-fatal; !errors.Is(err, kerr.UnknownTopicID) || !strings.Contains(err.Error(), "the topic twins was deleted") {
		t.Errorf("ends with %v", err)
	}
	if poll(30*time.Second, "", errors.New("a poll that was ended")) {
		t.Error("the end of a poll is a failure")
	}
}
