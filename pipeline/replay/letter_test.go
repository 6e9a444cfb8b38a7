package replay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"twinegress/internal/event"
	"twinegress/stages"
)

func headers(of ...string) (h []event.Header) {
	for i := 0; i < len(of); i += 2 {
		h = append(h, event.Header{Key: of[i], Value: []byte(of[i+1])})
	}
	return h
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		headers []event.Header
		want    string // as printed below, or a part of the error
	}{
		"an event": {
			headers("reason", "backoff", "detail", "d", "topic", "t", "partition", "3", "offset", "7", "endpoint", "e", "time", "now"),
			"backoff t/3/7/-1 e []",
		},
		"an array's": {
			headers("reason", "backoff", "topic", "t", "partition", "3", "offset", "7", "index", "0", "endpoint", "e", "time", "now"),
			"backoff t/3/7/0 e []",
		},
		"own headers with our names": {
			headers("reason", "backoff", "topic", "t", "partition", "3", "offset", "7", "endpoint", "e", "time", "now",
				"time", "1", "index", "x", "endpoint", "f", "topic", "u"),
			"backoff t/3/7/-1 e [time=1 index=x endpoint=f topic=u]",
		},
		"own endpoint of what has none": {
			headers("reason", "undecodable", "topic", "t", "partition", "3", "offset", "7", "time", "now", "endpoint", "f"),
			"undecodable t/3/7/-1  [endpoint=f]",
		},
		"none":                {nil, "time is missing"},
		"not ours":            {headers("time", "now", "topic", "t", "partition", "1", "offset", "1"), "not all there"},
		"cut short":           {headers("topic", "t", "partition", "1", "offset", "1"), "time is missing"},
		"no topic":            {headers("partition", "1", "offset", "1", "time", "now"), "not all there"},
		"no offset":           {headers("topic", "t", "partition", "1", "time", "now"), "not all there"},
		"a bad partition":     {headers("topic", "t", "partition", "x", "offset", "1", "time", "now"), "header partition"},
		"a partition too far": {headers("topic", "t", "partition", "2147483648", "offset", "1", "time", "now"), "header partition"},
		"a negative offset":   {headers("topic", "t", "partition", "1", "offset", "-1", "time", "now"), "header offset: -1 is negative"},
		"a bad index":         {headers("topic", "t", "partition", "1", "offset", "1", "index", "", "time", "now"), "header index"},
	} {
		l, err := parse(tt.headers)
		own := make([]string, 0, len(l.own))
		for _, h := range l.own {
			own = append(own, h.Key+"="+string(h.Value))
		}
		got := fmt.Sprintf("%s %s/%d/%d/%d %s %v", l.reason, l.topic, l.partition, l.offset, l.index, l.endpoint, own)
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != tt.want || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// A rebuilt event is the one that was set aside, and the chunk of its letter
// is settled no sooner than it.
func TestRebuild(t *testing.T) {
	settled := 0
	c := event.NewChunk("dead", 0, 2, 0, func(*event.Chunk) { settled++ })
	c.Add(100, 5, 0, []byte("k"), []byte(`{"id":"1","subject":"s","eventType":"UdfCustom"}`))
	c.Add(101, 6, 0, nil, []byte{0xff})
	var r run
	r.add(letter{offset: 40, index: 2}, &c.Records[0])
	r.add(letter{offset: 41, index: event.NoIndex, own: headers("DigitalTwins-Telemetry", "")}, &c.Records[1])
	r.rebuild(origin{"twins", 7}, c)
	c.Settle(1)
	stages.Decode(r.chunk, true)
	if len(r.chunk.Events) != 2 || len(r.chunk.Rejected) != 0 {
		t.Fatalf("%d events, %d rejected", len(r.chunk.Events), len(r.chunk.Rejected))
	}
	var ids []string
	for i := range r.chunk.Events {
		ev := &r.chunk.Events[i]
		if r.letters[i].index != event.NoIndex {
			ev.Index = r.letters[i].index
		}
		ids = append(ids, fmt.Sprintf("%s %s %t %q %q", ev.MessageID(nil), ev.Type, ev.Raw, ev.Body, ev.Record.Key))
	}
	want := []string{
		`twins/7/40/2 UdfCustom false "{\"id\":\"1\",\"subject\":\"s\",\"eventType\":\"UdfCustom\"}" "k"`,
		`twins/7/41 DeviceMessage true "\xff" ""`,
	}
	if got, want := strings.Join(ids, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("events\n%s\nwant\n%s", got, want)
	}
	if settled != 0 {
		t.Error("the letters are settled before their events")
	}
	r.chunk.Settle(1)
	if settled != 1 {
		t.Errorf("settled %d times", settled)
	}
}

// Each selection is a group of its own.
func TestGroup(t *testing.T) {
	at := time.Date(2026, 5, 1, 10, 0, 0, 0, time.FixedZone("", 7200))
	for want, got := range map[string]string{
		"twinegress-replay":                           Group("twinegress", "", time.Time{}),
		"twinegress-replay-id":                        Group("twinegress", "id", time.Time{}),
		"twinegress-replay-id-since-20260501T080000Z": Group("twinegress", "id", at),
		"twinegress-replay-since-20260501T080000Z":    Group("twinegress", "", at),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
