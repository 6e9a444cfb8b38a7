package replay

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/event"
	"twinegress/sinks/deadletter"
	"twinegress/stages"
)

func headers(of ...string) (h []event.Header) {
	for i := 0; i < len(of); i += 2 {
		h = append(h, event.Header{Key: of[i], Value: []byte(of[i+1])})
	}
	return h
}

// A rebuilt event is the one that was set aside, and the chunk of its letter
// is settled no sooner than it.
func TestRebuild(t *testing.T) {
	settled := 0
	c := event.NewChunk("dead", 0, 2, 0, func(*event.Chunk) { settled++ })
	c.Add(100, 5, 0, []byte("k"), []byte(`{"id":"1","subject":"s","eventType":"UdfCustom"}`))
	c.Add(101, 6, 0, nil, []byte{0xff})
	var r run
	r.add(deadletter.Letter{Offset: 40, Index: 2}, &c.Records[0])
	r.add(deadletter.Letter{Offset: 41, Index: event.NoIndex, Own: headers("DigitalTwins-Telemetry", "")}, &c.Records[1])
	r.rebuild(origin{"twins", 7}, c)
	c.Settle(1)
	stages.Decode(r.chunk, true, stages.Limits{})
	if len(r.chunk.Events) != 2 || len(r.chunk.Rejected) != 0 {
		t.Fatalf("%d events, %d rejected", len(r.chunk.Events), len(r.chunk.Rejected))
	}
	var ids []string
	for i := range r.chunk.Events {
		ev := &r.chunk.Events[i]
		if r.letters[i].Index != event.NoIndex {
			ev.Index = r.letters[i].Index
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

// Records that are no dead letters are all counted, and the first of them logged.
func TestForeignRecords(t *testing.T) {
	const foreign = 5 * maxWarnings
	core, logs := observer.New(zap.WarnLevel)
	r := New(Options{Log: zap.New(core)})
	for range 2 {
		c := event.NewChunk("dead", 0, foreign, 0, func(*event.Chunk) {})
		for offset := range int64(foreign) {
			c.Add(offset, 0, 0, nil, []byte("x"))
		}
		r.emit(c)
	}
	if r.read != 2*foreign || r.skipped.Unreadable != 2*foreign || logs.Len() != maxWarnings {
		t.Errorf("%d read, %d skipped, %d lines; want %d of both and %d lines", r.read, r.skipped.Unreadable, logs.Len(), 2*foreign, maxWarnings)
	}
}
