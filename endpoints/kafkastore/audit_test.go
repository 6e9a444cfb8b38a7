package kafkastore

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/internal/eventually"
)

// audited are the lines of the audit log: what, whose endpoint, by a copy or not.
func (r *running) audited(t *testing.T) (lines []string) {
	t.Helper()
	for _, l := range r.logs.All() {
		fields := l.ContextMap()
		if !strings.HasSuffix(l.LoggerName, ".audit") {
			continue
		}
		storetest.NoSecret(t, "an audit line", fmt.Sprint(fields))
		if l.Level != zap.InfoLevel || fields["audit"] != true || fields["topic"] != topic {
			t.Errorf("%s: %v", l.Message, fields)
		}
		name := fields["name"]
		lines = append(lines, fmt.Sprint(l.Message, " ", name, " ", fields["fields"], " ", fields["byTransaction"]))
	}
	return lines
}

// names are those in force, in their own order.
func names(r *running) string {
	var all []string
	for _, e := range r.Current() {
		all = append(all, e.Name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// What comes by the topic is in the audit log of every copy but the one whose API
// took it: another copy's changes, and those of whoever else may write there.
func TestChangesByTheTopicAreAudited(t *testing.T) {
	c := newCluster(t)
	before := c.start(t, c.keys)
	before.add(t, storetest.Hub("from before"))
	a, b := c.start(t, c.keys), c.start(t, c.keys)
	set := a.add(t, storetest.Hub("one"))
	a.edit(t, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		set[1].Path = "other"
		return set, nil
	})
	c.put(t, c.record(t, storetest.Hub("by hand")))
	c.put(t, &kgo.Record{Key: []byte(set[1].ID)})
	byHand := []string{"endpoint created through the topic by hand <nil> false", "endpoint deleted through the topic one <nil> false"}
	for name, want := range map[*running][]string{
		a: byHand,
		b: append([]string{"endpoint created through the topic one <nil> true", "endpoint changed through the topic one [path] true"}, byHand...),
	} {
		eventually.Holds(t, "the topic is followed", func() bool { return names(name) == "by hand from before" })
		if got := name.audited(t); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	if lines := c.start(t, c.keys).audited(t); len(lines) != 0 {
		t.Errorf("what a start finds is no change: %q", lines)
	}
}

// A key in the clear wasn't written by a copy: it isn't in force, and neither is it
// in the way of others.
func TestSecretsInTheClearAreRefused(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, c.keys)
	clear := func(e endpoints.Endpoint) *kgo.Record {
		set, err := endpoints.Prepare([]endpoints.Endpoint{e}, endpoints.Options{})
		storetest.Must(t, err)
		value, err := endpoints.Encode(set[0], nil)
		storetest.Must(t, err)
		return &kgo.Record{Key: []byte(set[0].ID), Value: value}
	}
	identity := storetest.Grid("identity", func(e *endpoints.Endpoint) {
		e.Authentication, e.ConnectionString, e.SecondaryConnectionString = "identityBased", "", ""
	})
	half := c.record(t, storetest.Hub("half"))
	half.Value = regexp.MustCompile(`"secondaryConnectionString":"age:[^"]*"`).ReplaceAll(half.Value, []byte(`"secondaryConnectionString":"`+storetest.Conn2+`"`))
	known := c.record(t, storetest.Hub("known"))
	c.put(t, known)
	eventually.Holds(t, "the known one is there", func() bool { return names(a) == "known" })
	overwritten := clear(storetest.Hub("known", func(e *endpoints.Endpoint) { e.Path = "elsewhere" }))
	if string(overwritten.Key) != string(known.Key) {
		t.Fatal("it overwrites nothing: the test is worth nothing")
	}
	c.put(t, clear(storetest.Hub("hub")), clear(storetest.Grid("grid")), half, overwritten, clear(identity))
	eventually.Holds(t, "the one without keys is there", func() bool { return names(a) == "identity known" })
	if slices.ContainsFunc(a.Current(), func(e endpoints.Endpoint) bool { return e.Path == "elsewhere" }) {
		t.Errorf("the known one has moved: %v", a.Current())
	}
	n := 0
	for _, l := range a.logs.FilterMessageSnippet("can't be read").All() {
		n += strings.Count(fmt.Sprint(l.ContextMap()), "in the clear")
	}
	if n != 4 {
		t.Errorf("%d of 4 are said to be in the clear: %v", n, a.logs.All())
	}
	if a.add(t, storetest.Hub("next")); names(a) != "identity known next" {
		t.Errorf("a change beside them: %s", names(a))
	}
	// A start finds the same, but for what was overwritten.
	if again := c.start(t, c.keys); names(again) != "identity next" {
		t.Errorf("after a restart: %s", names(again))
	}
}

// A batch that takes much more memory than its bytes is passed over, by who follows
// and by who starts, and what is behind it counts.
func TestBatchThatTakesTooMuch(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, c.keys)
	producer, err := kgo.NewClient(append([]kgo.Opt{kgo.DefaultProduceTopic(c.topic), kgo.ProducerBatchCompression(kgo.ZstdCompression())}, c.connect...)...)
	storetest.Must(t, err)
	defer producer.Close()
	for range 3 {
		storetest.Must(t, producer.ProduceSync(t.Context(), &kgo.Record{Key: []byte("x"), Value: make([]byte, 900_000)}).FirstErr())
	}
	a.add(t, storetest.Hub("behind"))
	if n := a.logs.FilterMessageSnippet("is passed over").Len(); n != 3 {
		t.Errorf("%d lines of %d", n, a.logs.Len())
	}
	storetest.Must(t, producer.ProduceSync(t.Context(), &kgo.Record{Key: []byte("x"), Value: make([]byte, 900_000)}).FirstErr())
	if b := c.start(t, c.keys); storetest.Names(b.Current()) != "behind" {
		t.Errorf("a new copy has %s", storetest.Names(b.Current()))
	}
}

// A million records that are none are no million lines, and endpoints beyond their
// limit aren't in force: the oldest are.
func TestRecordsOfOthersAreBounded(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, c.keys)
	records := make([]*kgo.Record, 500)
	for i := range records {
		records[i] = &kgo.Record{Key: fmt.Append(nil, "\x1b[2J", i), Value: []byte("{")}
	}
	c.put(t, records...)
	c.put(t, c.record(t, storetest.Hub("last")))
	eventually.Holds(t, "they are read", func() bool { return storetest.Names(a.Current()) == "last" })
	polls := 0 // a fetch may bring some of them
	for _, l := range a.logs.FilterMessageSnippet("can't be read").All() {
		problem := fmt.Sprint(l.ContextMap()["problem"])
		if strings.Contains(problem, "\x1b") {
			t.Errorf("%q", problem)
		}
		if strings.HasPrefix(problem, "and ") {
			polls++
		}
	}
	if lines := a.logs.FilterMessageSnippet("can't be read").Len(); polls == 0 || lines > (polls+1)*(maxReported+1) {
		t.Errorf("%d lines in %d polls", lines, polls)
	}

	full := make(table)
	for i := range endpoints.MaxEndpoints + 25 {
		id := fmt.Sprintf("%08d", i)
		full[id] = entry{good: true, created: time.Unix(int64(i), 0), endpoint: storetest.Hub("", func(e *endpoints.Endpoint) { e.ID = id })}
	}
	set, conflicts := full.set()
	if len(set) != endpoints.MaxEndpoints || set[len(set)-1].ID != "00019999" || len(conflicts) != 25 {
		t.Errorf("%d in force, up to %s; %d not", len(set), set[len(set)-1].ID, len(conflicts))
	}
	for n, want := range map[int]int{0: 0, 19: 19, 20: 20, 21: 21, 25: 21} {
		if said := firstOf(conflicts[:n]); len(said) != want || n > 20 && said[20] != fmt.Sprintf("and %d more", n-20) {
			t.Errorf("of %d: %d, %v", n, len(said), said)
		}
	}
}
