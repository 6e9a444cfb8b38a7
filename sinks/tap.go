package sinks

import (
	"encoding/base64"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/untrusted"
)

const (
	// maxTapBody and maxTapProperties bound what a Tap copies of one event.
	maxTapBody       = 64 << 10
	maxTapProperties = 16 << 10
	// maxTapEntries and maxTapBytes bound what waits for a Tap's reader.
	maxTapEntries = 128
	maxTapBytes   = 1 << 20
)

// Message is an event as it is sent to its endpoint.
type Message struct {
	ID          string // "" where the service has none of its own
	ContentType string
	Properties  map[string]any // strings, bytes or nil
	Body        []byte         // may be the event's own
}

// Render returns the message that an endpoint's sink makes of an event. It keeps
// nothing of the event but in the message's Body.
type Render func(endpoint endpoints.Endpoint, ev *event.Event) Message

// TapEntry is an event with its outcome at an endpoint. Its fields are the API's.
type TapEntry struct {
	At         time.Time      `json:"at" doc:"when the event got its outcome; in flight: when its send was looked at"`
	Outcome    string         `json:"outcome" enum:"delivered,dropped,in_flight" doc:"in_flight: it is being sent, and there is no answer yet"`
	Sending    *float64       `json:"sendingSeconds,omitempty" doc:"for how long it is being sent, if it is in flight"`
	Reason     string         `json:"reason" doc:"why it was dropped, in one word"`
	Detail     string         `json:"detail" doc:"why, in the service's words"`
	Latency    *float64       `json:"latencySeconds" doc:"from Kafka's append to the outcome; null: the record has no time, or it is in flight"`
	EventType  string         `json:"eventType"`
	Topic      string         `json:"topic"`
	Partition  int32          `json:"partition"`
	Offset     int64          `json:"offset"`
	Index      *int32         `json:"index,omitempty" doc:"in the record's array, if it is one"`
	MessageID  string         `json:"messageId,omitempty" doc:"of the AMQP message; Event Grid has none"`
	Type       string         `json:"contentType"`
	Properties map[string]any `json:"properties,omitempty" doc:"application properties of the AMQP message; bytes are in base64"`
	Bytes      int            `json:"bytes" doc:"size of the whole body"`
	Body       string         `json:"body" doc:"what is sent, with the endpoint's secrets masked"`
	Base64     bool           `json:"base64" doc:"body is in base64: its bytes are no text"`
	Cut        bool           `json:"cut" doc:"body or properties are larger than what is shown"`
	Skipped    int            `json:"skipped" doc:"events since the entry before that are not shown"`

	size int // in the queue
}

// TapCounts are the events that got their outcome since a Tap began. Those that
// its reader doesn't get were above its rate, or had no room in its queue.
type TapCounts struct {
	Seen    int `json:"seen" doc:"events that got their outcome on this copy"`
	Shown   int `json:"shown"`
	Sampled int `json:"aboveRate" doc:"not shown, since they are more than the rate"`
	Slow    int `json:"readerSlow" doc:"not shown, since the reader was too slow"`
}

// Tap is a look at the events of one endpoint as they get their outcome: a sample
// of so many a second, in a bounded queue for one reader. Who sends waits for a Tap
// no longer than a copy takes.
type Tap struct {
	of       *taps
	sends    *openSends
	endpoint func() endpoints.Endpoint
	render   Render
	ready    chan struct{}
	done     chan struct{}

	mu      sync.Mutex
	rate    float64
	allowed float64   // entries, now: a bucket that holds those of one second
	filled  time.Time // when allowed was added to last
	queue   []TapEntry
	bytes   int
	skipped int // since the last entry
	counts  TapCounts
	ended   string
	looks   *time.Timer // at the sends; nil: no more
	looked  time.Time

	// The reader's:
	secrets []string
	masker  *untrusted.Masker
}

// Tap starts a look at the sender's events, perSecond of them at most. Its Close
// must be called; it ends by itself with the sender.
func (s *Sender) Tap(perSecond int, render Render) *Tap {
	t := &Tap{
		of: &s.outcomes.taps, sends: &s.sends, endpoint: s.Endpoint, render: render,
		ready: make(chan struct{}, 1), done: make(chan struct{}),
		rate: float64(perSecond), allowed: float64(perSecond), filled: time.Now(),
	}
	t.learnSecrets() // an entry may come with a change of them before the first is read
	t.mu.Lock()
	t.looks = time.AfterFunc(0, t.look) // one that hangs already is shown at once
	t.mu.Unlock()
	t.of.add(t)
	return t
}

// Ready returns a channel that receives when there are entries.
func (t *Tap) Ready() <-chan struct{} { return t.ready }

// Done returns a channel that is closed when no more entries come.
func (t *Tap) Done() <-chan struct{} { return t.done }

// Ended returns why no more entries come, or "".
func (t *Tap) Ended() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// Close ends the Tap.
func (t *Tap) Close() {
	t.of.remove(t)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopLooking()
}

// Take returns the entries that wait, with secrets masked, and the counts up to
// them. One goroutine may call it.
func (t *Tap) Take() ([]TapEntry, TapCounts) {
	t.mu.Lock()
	entries, counts := t.queue, t.counts
	t.queue, t.bytes = nil, 0
	t.mu.Unlock()
	if len(entries) > 0 {
		t.learnSecrets()
	}
	for i := range entries {
		t.mask(&entries[i])
	}
	return entries, counts
}

// learnSecrets adds the endpoint's secrets to those that are masked. Those from
// before a change stay: an entry may be older.
func (t *Tap) learnSecrets() {
	before := len(t.secrets)
	for _, s := range t.endpoint().Secrets() {
		if !slices.Contains(t.secrets, s) {
			t.secrets = append(t.secrets, s)
		}
	}
	if len(t.secrets) > before {
		t.masker = untrusted.NewMasker(t.secrets...)
	}
}

// masking is held while an entry is masked. To look for secrets in a text that seems
// to have many takes milliseconds: who writes such events takes no more than one CPU
// from the others.
var masking sync.Mutex

// mask is the reader's, not the sender's: it takes longer than all else.
func (t *Tap) mask(e *TapEntry) {
	masking.Lock()
	defer masking.Unlock()
	body := t.masker.Mask(e.Body, e.Bytes > maxTapBody)
	if e.Bytes > maxTapBody {
		body = wholeRunes(body)
	}
	if e.Base64 = !utf8.ValidString(body); e.Base64 {
		body = base64.StdEncoding.EncodeToString([]byte(body))
	}
	e.Body = body
	for name, value := range e.Properties {
		switch v := value.(type) {
		case string:
			e.Properties[name] = t.masker.Mask(v, false)
		case []byte:
			e.Properties[name] = []byte(t.masker.Mask(string(v), false))
		}
	}
}

// wholeRunes returns s without a part of a character at its end.
func wholeRunes(s string) string {
	for n := 1; n < utf8.UTFMax && n <= len(s); n++ {
		if last := s[len(s)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRuneInString(last) {
				return s[:len(s)-n]
			}
			break
		}
	}
	return s
}

// observe adds a sample of events that have the same outcome; reason is "" for
// delivered. It is spread over them: the first ones of each batch would always be
// those of one partition.
func (t *Tap) observe(events []*event.Event, reason, detail string) {
	now := time.Now()
	n := t.sample(now, len(events))
	for i := range n {
		ev := events[i*len(events)/n]
		t.push(tapEntry(now, ev, t.render(t.endpoint(), ev), reason, detail))
	}
}

// sample returns how many of n events are to be shown, and counts the others.
func (t *Tap) sample(now time.Time, n int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Seen += n
	t.allowed = min(t.rate, t.allowed+now.Sub(t.filled).Seconds()*t.rate)
	t.filled = now
	shown := min(n, int(t.allowed))
	t.allowed -= float64(shown)
	t.counts.Sampled += n - shown
	t.skipped += n - shown
	if len(t.queue) == maxTapEntries || t.bytes >= maxTapBytes {
		t.counts.Slow += shown
		t.skipped += shown
		shown = 0 // nothing is copied to be thrown away
	}
	return shown
}

func (t *Tap) push(e TapEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hasRoom(e.size) { // several lanes may have seen room for one
		t.counts.Slow++
		t.skipped++
		return
	}
	e.Skipped, t.skipped = t.skipped, 0
	t.counts.Shown++
	t.queue = append(t.queue, e)
	t.bytes += e.size
	signal(t.ready)
}

// hasRoom is called with the lock held.
func (t *Tap) hasRoom(size int) bool {
	return len(t.queue) == 0 || len(t.queue) < maxTapEntries && t.bytes+size <= maxTapBytes
}

// tapEntry copies what is shown of an event, which is gone once it is settled.
func tapEntry(now time.Time, ev *event.Event, m Message, reason, detail string) TapEntry {
	e := TapEntry{
		At: now.UTC(), Outcome: "delivered", Reason: reason, Detail: detail,
		EventType: ev.Type.String(), Topic: ev.Chunk.Topic, Partition: ev.Chunk.Partition, Offset: ev.Record.Offset,
		MessageID: m.ID, Type: m.ContentType, Bytes: len(m.Body),
		Body: string(m.Body[:min(len(m.Body), maxTapBody)]), Cut: len(m.Body) > maxTapBody,
	}
	if reason != "" {
		e.Outcome = "dropped"
	}
	if ev.Index != event.NoIndex {
		index := ev.Index
		e.Index = &index
	}
	if at := ev.Record.Timestamp; at > 0 {
		latency := max(0, now.Sub(time.UnixMilli(at)).Seconds())
		e.Latency = &latency
	}
	e.size = len(e.Body) + len(e.Detail)
	room := maxTapProperties
	for name, value := range m.Properties {
		size := len(name)
		switch v := value.(type) {
		case string:
			size += len(v)
		case []byte:
			size += len(v)
			value = slices.Clone(v)
		}
		if size > room {
			e.Cut = true
			continue
		}
		if e.Properties == nil {
			e.Properties = make(map[string]any, len(m.Properties))
		}
		room -= size
		e.size += size
		e.Properties[name] = value
	}
	return e
}

// Why a Tap ended by itself.
const (
	TapDeleted = "the endpoint was deleted"
	TapStopped = "this copy stops"
)

// taps are the Taps of a sender. Without one they cost a batch the load of a pointer.
type taps struct {
	list atomic.Pointer[[]*Tap] // nil: none; never written to

	mu    sync.Mutex // of who changes the list
	ended string
}

// observe passes events with their outcome to the Taps, before they are settled.
func (t *taps) observe(events []*event.Event, reason, detail string) {
	if list := t.list.Load(); list != nil {
		for _, one := range *list {
			one.observe(events, reason, detail)
		}
	}
}

func (t *taps) add(one *Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended != "" {
		one.end(t.ended)
		return
	}
	var list []*Tap
	if old := t.list.Load(); old != nil {
		list = *old
	}
	list = append(slices.Clone(list), one)
	t.list.Store(&list)
}

func (t *taps) remove(one *Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.list.Load()
	if old == nil {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*old), func(other *Tap) bool { return other == one })
	if len(list) == 0 {
		t.list.Store(nil)
		return
	}
	t.list.Store(&list)
}

// end ends all Taps, and those that are added later.
func (t *taps) end(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = why
	if list := t.list.Swap(nil); list != nil {
		for _, one := range *list {
			one.end(why)
		}
	}
}

func (t *Tap) end(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = why
	t.stopLooking()
	close(t.done)
}
