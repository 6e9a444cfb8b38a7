package deadletter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

func stored(r *kgo.Record) (headers []event.Header) {
	for _, h := range r.Headers {
		headers = append(headers, event.Header{Key: h.Key, Value: h.Value})
	}
	return headers
}

func recordSize(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += headerSize(event.Header{Key: h.Key, Value: h.Value})
	}
	return n
}

// What is stored of a letter is what it is read as, whatever its record's own
// headers are called; what is missing of it is named; and it is no larger than
// it was taken for.
func roundTrip(t *rapid.T) {
	name := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"time", "cut", "topic", "index", "endpoint", "endpointName", "endpointTarget", "reason"}))
	c := event.NewChunk(rapid.StringMatching(`[a-z]{1,249}`).Draw(t, "topic"), rapid.Int32Min(0).Draw(t, "partition"), 1, 0, func(*event.Chunk) {})
	draw := func(label string, most int) []byte {
		return bytes.Repeat([]byte("x"), rapid.IntRange(0, most).Draw(t, label))
	}
	c.Add(rapid.Int64Min(0).Draw(t, "offset"), 0, 0, draw("key", 2000), draw("value", 2*cutValue))
	for range rapid.IntRange(0, 2*shareHeaders).Draw(t, "headers") {
		c.AddHeader(name.Draw(t, "name"), draw("header", 1000))
	}
	r := &c.Records[0]
	ev := event.Event{Chunk: c, Record: r, Index: rapid.Int32Range(event.NoIndex, 3*fewElements).Draw(t, "index"), Body: r.Value}
	reason := event.Reason(rapid.IntRange(0, int(event.NumReasons)-1).Draw(t, "reason"))
	var to *sinks.Recipient
	want := Letter{}
	if rapid.Bool().Draw(t, "routed") {
		to = &sinks.Recipient{ID: rapid.StringMatching(`[a-f0-9-]{1,36}`).Draw(t, "endpoint"), Name: rapid.StringN(0, 128, -1).Draw(t, "endpoint's name"), Target: rapid.StringN(0, 300, -1).Draw(t, "target")}
		want.Endpoint = to.ID
		if ev.Index < fewElements {
			want.Name, want.Target = to.Name, to.Target
		}
	}
	l := letter{
		event: &ev, reason: reason, to: to, time: time.Now(),
		detail: newText(rapid.String().Draw(t, "detail")).long,
	}
	for range rapid.IntRange(0, 2).Draw(t, "cut") {
		l.shorten()
	}

	record := l.record()
	got, err := Parse(stored(record))
	if err != nil {
		t.Fatal(err)
	}
	if got.Reason != reason.String() || got.Topic != c.Topic || got.Partition != c.Partition || got.Offset != r.Offset || got.Index != ev.Index || got.Endpoint != want.Endpoint || got.Name != want.Name || got.Target != want.Target {
		t.Fatalf("%+v is read of %+v", got, l)
	}
	for part, kept := range map[string]bool{
		"value": bytes.Equal(record.Value, ev.Body), "key": bytes.Equal(record.Key, r.Key), "headers": len(got.Own) == len(r.Headers),
	} {
		if slices.Contains(strings.Split(got.Cut, ","), part) == kept {
			t.Fatalf("cut is %q; that the %s is whole: %t", got.Cut, part, kept)
		}
	}
	next := 0
	for _, h := range got.Own { // in their order
		for !slices.EqualFunc(r.Headers[next:next+1], []event.Header{h}, func(a, b event.Header) bool {
			return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
		}) {
			next++
		}
		next++
	}
	if !bytes.HasPrefix(ev.Body, record.Value) {
		t.Fatal("the value is another")
	}
	if got, limit := recordSize(record), l.size(); got > limit {
		t.Fatalf("the letter has %d bytes and is taken for %d", got, limit)
	}
}

func TestLetterRoundTrip(t *testing.T) { rapid.Check(t, roundTrip) }

func FuzzLetter(f *testing.F) { f.Fuzz(rapid.MakeFuzz(roundTrip)) }

// What a letter repeats of its record's key and headers has bounds.
func TestWhatALetterRepeats(t *testing.T) {
	const body = 100 // bytes; the share is 400
	for title, test := range map[string]struct {
		index        int32
		key, headers int
		header       int // bytes of each header's value; its name has one, its lengths take 8
		wantHeaders  int
		cut          string
	}{
		"as many headers as are repeated":      {event.NoIndex, 0, maxHeaders, 0, maxHeaders, ""},
		"one more":                             {event.NoIndex, 0, maxHeaders + 1, 0, maxHeaders, "headers"},
		"a record's, however large":            {event.NoIndex, 1 << 20, 3, 1 << 20, 3, ""},
		"an early element's":                   {fewElements - 1, 1 << 20, 3, 1 << 20, 3, ""},
		"a late element's, as its share":       {fewElements, 391, 1, 0, 1, ""},
		"a late element's key, over its share": {fewElements, 401, 0, 0, 0, "key"},
		"its header, over what the key left":   {fewElements, 392, 1, 0, 0, "headers"},
		"its headers, one over its share":      {fewElements, 0, 5, 91, 4, "headers"},
		"its headers, all in its share":        {fewElements, 0, 4, 91, 4, ""},
		"both":                                 {fewElements, 1 << 20, 3, 1 << 20, 0, "key,headers"},
	} {
		c := event.NewChunk("twins", 3, 1, 0, func(*event.Chunk) {})
		c.Add(41, 0, 0, make([]byte, test.key), make([]byte, body))
		for range test.headers {
			c.AddHeader("h", make([]byte, test.header))
		}
		l := letter{event: &event.Event{Chunk: c, Record: &c.Records[0], Index: test.index, Body: c.Records[0].Value}}
		got, err := Parse(stored(l.record()))
		if err != nil || len(got.Own) != test.wantHeaders || got.Cut != test.cut {
			t.Errorf("%s: %d headers, cut %q, %v; want %d, %q", title, len(got.Own), got.Cut, err, test.wantHeaders, test.cut)
		}
	}
}

// All letters of a record are a small multiple of it and of what the first few say
// of themselves, however many elements it has and however much belongs to all of
// them: of one endpoint that drops each, and of the elements that are rejected before.
func TestLettersOfARecordAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// The smallest element that can have an endpoint.
		element := `{"eventType":"UdfCustom"` + strings.Repeat(" ", rapid.IntRange(0, 300).Draw(t, "spaces")) + `}`
		if rapid.Bool().Draw(t, "rejected") {
			element = "1"
		}
		n := rapid.IntRange(1, 3000).Draw(t, "elements")
		value := []byte("[" + element + strings.Repeat(","+element, n-1) + "]")
		c := event.NewChunk("digitaltwins-events", 3, 1, 0, func(*event.Chunk) {})
		c.Add(1<<40, 0, 0, make([]byte, rapid.IntRange(0, 10_000).Draw(t, "key")), value)
		for range rapid.IntRange(0, 100).Draw(t, "headers") {
			c.AddHeader(strings.Repeat("h", rapid.IntRange(0, 10).Draw(t, "name")), make([]byte, rapid.SampledFrom([]int{0, 10, 100, 10_000}).Draw(t, "header")))
		}
		r := &c.Records[0]
		size := recordSize((&letter{event: &event.Event{Chunk: c, Record: r, Index: event.NoIndex, Body: value}, time: time.Now()}).record())
		topic, to := &Topic{queued: newQueue()}, sinks.NewRecipient(endpoints.Endpoint{
			ID: "568fd394-380b-46fa-925a-ebb96f658cce", Type: endpoints.TypeEventHub,
			Name: strings.Repeat("n", rapid.IntRange(0, 2000).Draw(t, "endpoint name")),
			Path: strings.Repeat("p", rapid.IntRange(0, 2000).Draw(t, "path")),
		})
		var rejected []event.Rejection
		for i := range n {
			ev := event.Event{Chunk: c, Record: r, Index: int32(i), Body: []byte(element)}
			if element != "1" {
				topic.Put(&ev, event.Unreachable, strings.Repeat("detail ", 200), to)
				continue
			}
			rejected = append(rejected, event.Rejection{Event: ev, Reason: event.Reason(rapid.IntRange(0, 1).Draw(t, "reason")), Detail: "not a JSON object"})
		}
		topic.PutRejected(rejected)
		total := 0
		letters := slices.Concat(topic.queued.drain()...)
		for i := range letters {
			total += recordSize(letters[i].record())
		}
		// 8 with all of it and long headers of ours, and the element's own bytes, its
		// share and our headers.
		if limit := (fewElements+elementShare+1)*size + min(n, fewElements)*longOwn + n*len(element)*20; total > limit {
			t.Fatalf("%d letters of %d bytes in all for a record of %d", len(letters), total, size)
		}
	})
}

// longOwn is what the first few letters of a record have of ours at most beyond what
// every letter has: the detail, and the endpoint's name and target.
const longOwn = 1000 + 2*300 + 100

// What many elements of a record are rejected for is one letter for each reason,
// and of a few elements a letter each.
func TestRejectedElements(t *testing.T) {
	for title, test := range map[string]struct {
		reasons string // of each element: u undecodable, t of unknown type, . not rejected
		want    []string
	}{
		"none":       {"...", nil},
		"a few":      {"u.tu", []string{"undecodable index=0", "unknown_type index=2", "undecodable index=3"}},
		"eight":      {"uuuuuuuu", []string{"undecodable index=0", "undecodable index=1", "undecodable index=2", "undecodable index=3", "undecodable index=4", "undecodable index=5", "undecodable index=6", "undecodable index=7"}},
		"nine":       {"uuuuuuuuu", []string{"undecodable elements=0-8"}},
		"of each":    {"uu.utttttt.t", []string{"undecodable elements=0-1,3", "unknown_type elements=4-9,11"}},
		"very many":  {strings.Repeat("u.", 5000), []string{"undecodable elements=0,2,4,"}},
		"a thousand": {strings.Repeat("u", 1000), []string{"undecodable elements=0-999"}},
	} {
		settled := 0
		c := event.NewChunk("twins", 3, 1, 0, func(*event.Chunk) { settled++ })
		var value []json.RawMessage
		for range test.reasons {
			value = append(value, json.RawMessage("1"))
		}
		whole, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		c.Add(41, 0, 0, []byte("k"), whole)
		var rejected []event.Rejection
		for i, of := range test.reasons {
			reason, ok := map[rune]event.Reason{'u': event.Undecodable, 't': event.UnknownType}[of]
			if ok {
				rejected = append(rejected, event.Rejection{Event: event.Event{Chunk: c, Record: &c.Records[0], Index: int32(i), Body: []byte("1")}, Reason: reason, Detail: "why " + strconv.Itoa(i)})
			}
		}
		topic := &Topic{queued: newQueue()}
		topic.PutRejected(rejected)
		c.Settle(1)
		var got []string
		letters := slices.Concat(topic.queued.drain()...)
		for i := range letters {
			r := letters[i].record()
			text, wantValue := "", string(whole)
			for _, h := range r.Headers {
				switch h.Key {
				case "reason":
					text = string(h.Value)
				case "index", "elements":
					text += fmt.Sprintf(" %s=%s", h.Key, h.Value)
				}
				if h.Key == "index" {
					wantValue = "1"
				}
			}
			if string(r.Value) != wantValue || string(r.Key) != "k" || !strings.HasPrefix(letters[i].detail, "why ") {
				t.Errorf("%s: the letter has %q, %q, %q", title, r.Key, r.Value, letters[i].detail)
			}
			got = append(got, text)
			if settled != 0 {
				t.Errorf("%s: the chunk is settled before its letters", title)
			}
			c.Settle(1)
		}
		if title == "very many" {
			if len(got) != 1 || !strings.HasPrefix(got[0], test.want[0]) || !strings.HasSuffix(got[0], ",… 5000 in all") || len(got[0]) > maxElements+100 {
				t.Errorf("%s: %s", title, got)
			}
		} else if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", title, got, test.want)
		}
		if settled != 1 {
			t.Errorf("%s: settled %d times", title, settled)
		}
	}
}

// Words from outside are masked, escaped and cut before they are stored.
func TestDetailIsFitToBeShown(t *testing.T) {
	ev, _ := newLetter(nil, []byte("v"), event.NoIndex)
	topic := &Topic{queued: newQueue()}
	for _, given := range []string{"SharedAccessKey=c2VjcmV0c2VjcmV0 \x1b[31m" + strings.Repeat("x", 1<<20), "short"} {
		for index, limit := range map[int32]int{event.NoIndex: 1010, fewElements: elementDetail + 10} {
			ev.Index = index
			topic.Put(ev, event.Rejected, given, nil)
			l := topic.queued.drain()[0][0]
			if strings.Contains(l.detail, "c2VjcmV0") || strings.Contains(l.detail, "\x1b") || len(l.detail) > limit {
				t.Errorf("index %d: %d bytes of detail: %.100q", index, len(l.detail), l.detail)
			}
		}
	}
}
