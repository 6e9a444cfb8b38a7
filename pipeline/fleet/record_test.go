package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"twinegress/internal/event"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// full is an endpoint of which every field is set, in which the equation holds.
func full() entry {
	e := entry{
		id: [16]byte{1, 2, 3}, state: sinks.StateDegraded, since: 1, reason: "too_large", delivered: 3, pending: 4,
		windows: [9]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}, oldest: 5, lastDelivered: 6, lastErrorAt: 7, lastError: "why",
		failingSince: 8, backOffUntil: 9, partitions: []int{0, 31}, secondary: true, holdsBack: true, deferred: 1000,
		catchUp: catchUp{backlog: 10, since: 11, reason: "backoff", oldestAt: 12, pace: 13, caughtUpAt: 14, falls: true},
	}
	for i := range e.dropped {
		e.dropped[i] = uint64(i)
	}
	e.routed = 3 + 4 + 31*32/2 + 1000
	return e
}

func TestEntry(t *testing.T) {
	want := full()
	for i, v := 0, reflect.ValueOf(want); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not set here", v.Type().Field(i).Name)
		}
	}
	var got entry
	if err := got.read(want.append(nil)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\n%+v", err, got, want)
	}
	// What a later version adds is skipped; its states are not known.
	later := protowire.AppendVarint(protowire.AppendTag(want.append(nil), 99, protowire.VarintType), 5)
	later = protowire.AppendFixed32(protowire.AppendTag(later, 98, protowire.Fixed32Type), 5)
	later = protowire.AppendString(protowire.AppendTag(later, 97, protowire.BytesType), "later")
	later = protowire.AppendVarint(protowire.AppendTag(later, fieldState, protowire.VarintType), uint64(len(states)+1))
	want.state = stateUnknown
	if err := got.read(later); err != nil || got.state != sinks.StateDegraded && got.state != stateUnknown {
		t.Errorf("%v, %+v", err, got)
	}
}

// A state, or a reason to drop, that is new has its place in records.
func TestEveryStateAndReason(t *testing.T) {
	for _, state := range sinks.States {
		if !slices.Contains(states, state) || !slices.Contains(badness, state) {
			t.Errorf("%s is not in states and badness", state)
		}
	}
	for i := range event.NumReasons {
		switch reason := event.Reason(i); reason {
		case event.Undecodable, event.UnknownType: // these reach no endpoint
		default:
			if !slices.Contains(reasons, reason.String()) {
				t.Errorf("%s is not in reasons", reason)
			}
		}
	}
}

// Records that nobody should have written.
func TestMalformedRecords(t *testing.T) {
	change := func(change func(*entry)) []byte {
		e := full()
		change(&e)
		return e.append(nil)
	}
	entries := map[string][]byte{
		"the equation doesn't hold": change(func(e *entry) { e.routed++ }),
		"no id":                     change(func(e *entry) { e.id = [16]byte{} }),
		"too large a count":         change(func(e *entry) { e.delivered, e.routed = maxCount+1, e.routed+maxCount-2 }),
		"too large a window":        change(func(e *entry) { e.windows[3] = maxCount + 1 }),
		"too many partitions":       change(func(e *entry) { e.partitions = make([]int, maxPartitions+1) }),
		"no word":                   change(func(e *entry) { e.reason = "Too large!" }),
		"cut":                       change(func(*entry) {})[:19],
	}
	for name, b := range entries {
		var e entry
		if err := e.read(b); err == nil {
			t.Errorf("%s: taken: %+v", name, e)
		}
	}
	in := full()
	in.dropped, in.delivered, in.pending = [maxReasons]uint64{}, maxCount, 0
	in.deferred = maxCount
	in.routed, in.windows[0], in.partitions = 2*maxCount, maxCount, make([]int, maxPartitions)
	var e entry
	if err := e.read(in.append(nil)); err != nil {
		t.Errorf("at the limits: %v", err)
	}

	in = full()
	own, _ := appendEntry(nil, &in, nil)
	twice, _ := appendEntry(own, &in, nil)
	for name, b := range map[string][]byte{
		"twice the same": twice, "another version": append([]byte{2}, own[1:]...), "empty": {}, "cut": own[:len(own)-1],
		"too large": append(own, make([]byte, maxBlock)...),
	} {
		if checkBlock(blockOf(in.id), b) == nil {
			t.Errorf("block %s: taken", name)
		}
	}
	if checkBlock(blockOf(in.id)+1, own) == nil || checkBlock(blockOf(in.id), own) != nil {
		t.Error("an endpoint in another block, or not in its own")
	}

	good := head{V: version, Instance: "a\x1b[2J", At: time.Now(), Ingest: pipeline.IngestStatus{Rejected: map[string]uint64{"undecodable": 1}}}
	for name, change := range map[string]func(*head){
		"version": func(h *head) { h.V = 2 }, "negative": func(h *head) { h.Ingest.Records = -1 },
		"too many": func(h *head) { h.Ingest.Events = maxCount + 1 }, "word": func(h *head) { h.Ingest.Rejected = map[string]uint64{"A b": 1} },
		"too many partitions": func(h *head) { h.Ingest.Partitions = make([]int32, maxParts+1) },
		"too many notes":      func(h *head) { h.Ingest.Groups = make([]string, maxWords+1) },
		"size":                func(h *head) { h.Instance = strings.Repeat("x", maxHead) },
		"":                    func(h *head) { h.Ingest.Groups = slices.Repeat([]string{"\x1b[2J"}, maxWords) },
	} {
		h := good
		change(&h)
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readHead(b); (err == nil) != (name == "") || strings.ContainsRune(got.Instance+strings.Join(got.Ingest.Groups, ""), 0x1b) {
			t.Errorf("head %s: %v, %q", name, err, got.Instance)
		}
	}
	if _, err := readHead([]byte("{")); err == nil {
		t.Error("no JSON is taken")
	}
}

func TestKeys(t *testing.T) {
	const id = "host-1.example_a-0123abcd"
	for key, want := range map[string]string{
		headKey(id): keyHead, blockKey(id, 0): keyBlock, blockKey(id, blocks-1): keyBlock, commandKey(id): keyCommand,
		blockKey(id, blocks): "", "endpoints/" + id + "/0": "", "endpoints/" + id + "/0001": "", "endpoints/" + id: "", "copy/": "", "copy/a b-0123abcd": "",
		"copy/" + strings.Repeat("x", 119) + "-0123abcd": keyHead, "copy/" + strings.Repeat("x", 120) + "-0123abcd": "", "": "", "other": "",
	} {
		if kind, _, _ := parseKey(key); kind != want {
			t.Errorf("%q is %q, want %q", key, kind, want)
		}
	}
	for instance, want := range map[string]string{"pod-0": "pod-0", "": "copy", "a b/ü": "a_b__", strings.Repeat("x", 300): strings.Repeat("x", 119)} {
		if got := legalName(instance); got != want || !legalID.MatchString(got+"-0123abcd") {
			t.Errorf("%q: %q", instance, got)
		}
	}
}

// What is kept of others is bounded: copies, and bytes.
func TestBounds(t *testing.T) {
	now := time.Now()
	headOf := func(instance string) []byte {
		b, _ := json.Marshal(head{V: version, Instance: instance, StartedAt: now, At: now})
		return b
	}
	c := newCopies()
	for i := range maxCopies {
		if err := c.put(keyHead, fmt.Sprint(i), 0, headOf("x"), now, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.put(keyHead, "more", 0, headOf("x"), now, now); err != errTooMuch { //nolint:errorlint // as it is
		t.Errorf("one more copy: %v", err)
	}
	if err := c.put(keyHead, "3", 0, nil, now, now); err != nil || len(c.all) != maxCopies-1 {
		t.Errorf("%v, %d", err, len(c.all))
	}
	in := full()
	block, _ := appendEntry(nil, &in, nil)
	c.bytes = maxKept - len(block)
	if err := c.put(keyBlock, "5", blockOf(in.id), block, now, now); err != nil || c.bytes != maxKept {
		t.Errorf("at the limit: %v, %d", err, c.bytes)
	}
	if err := c.put(keyBlock, "5", blockOf(in.id), bytes.Clone(block), now, now); err != nil || c.bytes != maxKept {
		t.Errorf("the same once more: %v, %d", err, c.bytes)
	}
	if err := c.put(keyBlock, "6", blockOf(in.id), block, now, now); err != errTooMuch { //nolint:errorlint // as it is
		t.Errorf("beyond: %v", err)
	}
	if err := c.put(keyHead, "5", 0, nil, now, now); err != nil || c.bytes != maxKept-len(block) {
		t.Errorf("%v, %d", err, c.bytes)
	}
}

// How old a copy's word is, whatever the clocks say.
func TestAge(t *testing.T) {
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	say := func(c *copies, id, instance string, began, wrote, now time.Time) {
		b, _ := json.Marshal(head{V: version, Instance: instance, StartedAt: began, At: wrote})
		if err := c.put(keyHead, id, 0, b, wrote, now); err != nil {
			t.Fatal(err)
		}
	}
	self := head{Instance: "self", StartedAt: at(-1000)}
	c := newCopies()
	// What was there at the start: one says how it is, one is dead for an hour.
	say(c, "live", "a", at(-50), at(-1), at(0))
	say(c, "dead", "b", at(-5000), at(-3600), at(0))
	c.newest = at(0) // this copy's own
	c.caughtUp(at(0))
	live, stale, oldest := c.count(at(0))
	if live != 1 || stale != 1 || oldest != time.Second {
		t.Errorf("%d live, %d stale, %v", live, stale, oldest)
	}
	if gone := c.forgotten(at(0), self); len(gone) != 1 || gone["dead"] == nil {
		t.Errorf("forgotten: %v", gone)
	}
	// A record whose time is far off is as old as it is here.
	say(c, "live", "a", at(-50), at(100000), at(2))
	if c.all["live"].stale(at(2+4.5)) || !c.all["live"].stale(at(2+4.6)) {
		t.Error("stale too early or too late")
	}
	// One that runs beside it doesn't take its place; one that began since does.
	say(c, "live", "a", at(-50), at(3), at(3))
	say(c, "beside", "a", at(2), at(20), at(21))
	if gone := c.forgotten(at(21), self); len(gone) != 0 {
		t.Errorf("forgotten: %v", gone)
	}
	say(c, "after", "a", at(4), at(21), at(21))
	if gone := c.forgotten(at(21), self); len(gone) != 1 || gone["live"] == nil {
		t.Errorf("forgotten: %v", gone)
	}
	if gone := c.forgotten(at(21+600), self); len(gone) != 0 {
		t.Errorf("forgotten before its time: %v", gone)
	}
	if gone := c.forgotten(at(22+600), self); len(gone) != 2 {
		t.Errorf("forgotten: %v", gone)
	}
}

func FuzzBlock(f *testing.F) {
	e := full()
	block, _ := appendEntry(nil, &e, nil)
	f.Add(block)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = eachEntry(b, func(e *entry) {
			n++
			dropped := uint64(0)
			for _, d := range e.dropped {
				dropped += d
			}
			if e.routed != e.delivered+e.pending+e.deferred+dropped || len(e.lastError) > 12*maxErrorLength {
				t.Errorf("%+v", e)
			}
		})
		if n > maxEntries {
			t.Errorf("%d entries", n)
		}
	})
}
