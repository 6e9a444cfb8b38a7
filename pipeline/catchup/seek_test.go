package catchup

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/sinks"
)

var epoch = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)

// fill appends an event a minute to partition 2, ten of them, and one to partition 0.
func fill(t *testing.T, cluster *kfake.Cluster) {
	t.Helper()
	c := dial(t, cluster)
	var records []*kgo.Record
	for n := range 10 {
		records = append(records, &kgo.Record{Topic: events, Partition: 2, Timestamp: epoch.Add(time.Duration(n) * time.Minute)})
	}
	records = append(records, &kgo.Record{Topic: events, Partition: 0, Timestamp: epoch.Add(time.Minute)})
	if err := c.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func deleteBefore(t *testing.T, cluster *kfake.Cluster, offset int64) {
	t.Helper()
	offsets := make(kadm.Offsets)
	offsets.Add(kadm.Offset{Topic: events, Partition: 2, At: offset})
	if _, err := kadm.NewClient(dial(t, cluster)).DeleteRecords(t.Context(), offsets); err != nil {
		t.Fatal(err)
	}
}

func seekTo(to string, at time.Time) []endpoints.Endpoint {
	return []endpoints.Endpoint{{ID: idOf(0), SeekTo: to, SeekAt: at.Format(time.RFC3339Nano)}}
}

func minute(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }

// A seek is applied once in each partition: by its owner, or by the next one.
func TestSeek(t *testing.T) {
	cluster := brokers(t)
	fill(t, cluster)
	deleteBefore(t, cluster, 2)
	rfc := func(at time.Time) string { return at.Format(time.RFC3339) }
	for title, test := range map[string]struct {
		to     string
		at     time.Time
		before *sinks.Position
		want   *sinks.Position
	}{
		"earliest, live":              {endpoints.Earliest, minute(20), nil, &sinks.Position{Cursor: 2, Resume: 8}},
		"earliest, behind":            {endpoints.Earliest, minute(20), &sinks.Position{Cursor: 5, Resume: -1}, &sinks.Position{Cursor: 2, Resume: 5}},
		"earliest, another under way": {endpoints.Earliest, minute(20), &sinks.Position{Cursor: 3, Resume: 6}, &sinks.Position{Cursor: 2, Resume: 6}},
		"a time":                      {rfc(minute(4)), minute(20), nil, &sinks.Position{Cursor: 4, Resume: 8}},
		"between two events":          {rfc(minute(4).Add(time.Second)), minute(20), nil, &sinks.Position{Cursor: 5, Resume: 8}},
		"before what Kafka has":       {rfc(minute(-100)), minute(20), nil, &sinks.Position{Cursor: 2, Resume: 8}},
		"after what Kafka has":        {rfc(minute(15)), minute(20), nil, &sinks.Position{Cursor: 10, Resume: 8}},
		"latest, live":                {endpoints.Latest, minute(20), nil, nil},
		"latest, behind":              {endpoints.Latest, minute(20), &sinks.Position{Cursor: 5, Resume: -1}, &sinks.Position{Cursor: 10, Resume: 5}},
		"latest, as it was then":      {endpoints.Latest, minute(7), &sinks.Position{Cursor: 5, Resume: -1}, &sinks.Position{Cursor: 7, Resume: 5}},
		"latest, it is past that":     {endpoints.Latest, minute(3), &sinks.Position{Cursor: 5, Resume: 6}, &sinks.Position{Cursor: 5, Resume: 6}},
		"cancel":                      {endpoints.Cancel, minute(20), &sinks.Position{Cursor: 3, Resume: 6}, &sinks.Position{Cursor: 6, Resume: -1}},
		"cancel, nothing under way":   {endpoints.Cancel, minute(20), &sinks.Position{Cursor: 3, Resume: -1}, &sinks.Position{Cursor: 3, Resume: -1}},
		"cancel, live":                {endpoints.Cancel, minute(20), nil, nil},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			a := start(t, cluster.ListenAddrs(), "", 1)
			o := a.assign(t, -1, "")
			o.Handed.Store(8)
			o.Dispatched.Store(9) // it may not have got this one yet
			if test.before != nil {
				a.order[0].Seek(o, test.before.Cursor, test.before.Resume)
			}
			set := seekTo(test.to, test.at)
			a.Seeks(set)
			a.applied(t, o, 1)
			check := func(c *copyOf, o *event.Ownership) {
				t.Helper()
				got, behind := c.order[0].Position(o)
				got.Since = time.Time{}
				if behind != (test.want != nil) || behind && got != *test.want {
					t.Errorf("%+v, want %+v", got, test.want)
				}
			}
			check(a, o)

			// Neither by the next owner, nor by this one when the endpoints change.
			b := start(t, cluster.ListenAddrs(), "", 1)
			b.Seeks(set)
			next := b.assign(t, 10, a.metadata(t, o))
			a.Seeks(append(set, endpoints.Endpoint{ID: idOf(1)}))
			if !a.applySeeks(t.Context()) || !b.applySeeks(t.Context()) {
				t.Error("not done")
			}
			check(a, o)
			if got := b.cursors(next); !reflect.DeepEqual(got, a.cursors(o)) {
				t.Errorf("the next owner has %v", got)
			}
			if n := b.logged("seek applied"); n > 0 {
				t.Errorf("applied %d times again", n)
			}
			// Another one is another one.
			b.Seeks(seekTo(rfc(minute(9)), minute(21)))
			b.applied(t, next, 2)
			if at, _ := b.order[0].Position(next); at.Cursor != 9 {
				t.Errorf("the next seek leads to %+v", at)
			}
		})
	}
}

// applied waits until a partition has had so many seeks.
func (c *copyOf) applied(t *testing.T, o *event.Ownership, n int) {
	t.Helper()
	p := c.find(o)
	eventually.Holds(t, "the seek is applied", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.applied) == n
	})
}

// A seek waits for brokers that don't answer, and says so.
func TestSeekWaits(t *testing.T) {
	cluster := brokers(t)
	fill(t, cluster)
	c := start(t, cluster.ListenAddrs(), "", 1)
	o := &event.Ownership{Topic: "another", Partition: 0}
	if err := c.Assigned(t.Context(), o, -1, ""); err != nil {
		t.Fatal(err)
	}
	c.Seeks(seekTo(endpoints.Earliest, minute(20)))
	eventually.Holds(t, "it is said", func() bool { return c.logged("seeks wait for Kafka") == 1 && len(c.Status().Notes) == 1 })
	if len(c.cursors(o)) > 0 || c.metadata(t, o) != Version {
		t.Error("applied, nobody knows where")
	}
	c.Revoked(o)
	eventually.Holds(t, "it is done", func() bool { return c.applySeeks(t.Context()) && len(c.Status().Notes) == 0 })
}

// A seek that no endpoint has any more is forgotten, in time: lists are short.
func TestSeeksAreForgotten(t *testing.T) {
	cluster := brokers(t)
	fill(t, cluster)
	c := start(t, cluster.ListenAddrs(), "", 1)
	o := c.assign(t, -1, "")
	c.Seeks(seekTo(endpoints.Latest, minute(20)))
	c.applied(t, o, 1)
	if c.metadata(t, o) == Version {
		t.Fatal("not listed")
	}
	c.Seeks(nil)
	c.applySeeks(t.Context())
	if c.metadata(t, o) == Version {
		t.Error("forgotten at once: another copy may know it")
	}
	p := c.find(o)
	p.mu.Lock()
	p.since = time.Now().Add(-2 * grace)
	p.mu.Unlock()
	c.applySeeks(t.Context())
	if got := c.metadata(t, o); got != Version {
		t.Errorf("still listed: %q", got)
	}
}

func TestPreview(t *testing.T) {
	cluster := brokers(t)
	c := start(t, cluster.ListenAddrs(), "", 1)
	preview := func(to string) string {
		t.Helper()
		p, err := c.Preview(t.Context(), to)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(p.Offsets, " ", minutes(p.From), " ", minutes(p.Reaches))
	}
	if got := preview(endpoints.Earliest); got != "0 - -" {
		t.Errorf("an empty topic: %s", got)
	}
	fill(t, cluster)
	deleteBefore(t, cluster, 2)
	for to, want := range map[string]string{
		endpoints.Earliest:               "9 1 1",
		endpoints.Latest:                 "0 - 1",
		minute(7).Format(time.RFC3339):   "3 7 1",
		minute(-60).Format(time.RFC3339): "9 1 1",
		minute(60).Format(time.RFC3339):  "0 - 1",
		"yesterday":                      `"yesterday" is no place to seek to`,
	} {
		if got := preview(to); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
	c.options.Topics = []string{events, "missing"}
	if got := preview(endpoints.Earliest); !strings.Contains(got, "missing") && !strings.Contains(got, "UNKNOWN_TOPIC") {
		t.Errorf("a topic is missing: %s", got)
	}
}

func minutes(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return fmt.Sprint(at.Sub(epoch).Minutes())
}
