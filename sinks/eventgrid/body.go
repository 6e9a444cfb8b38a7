package eventgrid

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"twinegress/internal/event"
	"twinegress/internal/jsonwalk"
)

// buffers are what bodies are built in. A new megabyte for each batch would
// be most of what this sink leaves to the garbage collector.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled leaves room for an event that overshoots.
const maxPooled = 2 * maxBytes

// build gives the JSON array of as many events as one request takes, at least
// one, however large, and tells how many those are. buf is built in.
func build(buf []byte, events []*event.Event) (body []byte, n int) {
	size := 2
	for _, ev := range events {
		size += len(ev.Body) + 1
	}
	if size = min(size, maxBytes); cap(buf) < size {
		buf = make([]byte, 0, size)
	}
	body = buf[:1]
	body[0] = '['
	for i, ev := range events {
		end := len(body)
		if i > 0 {
			body = append(body, ',')
		}
		body = appendEvent(body, ev.Body)
		if len(body)+1 > maxBytes && i > 0 {
			return append(body[:end], ']'), i
		}
	}
	return append(body, ']'), len(events)
}

// reader is a request's body. net/http reads it in a goroutine of its own and
// may go on when the request has returned: one that failed, or was answered
// early. From release on it finds nothing more, so the buffer may be another
// request's.
type reader struct {
	mu sync.Mutex
	r  *bytes.Reader // nil: released
}

var errReleased = errors.New("the request is over")

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return 0, errReleased
	}
	return r.r.Read(p)
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return 0, errReleased
	}
	return r.r.Seek(offset, whence)
}

func (r *reader) Close() error { return nil }

func (r *reader) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r = nil
}

// appendEvent appends an event as Event Grid takes it: its own bytes, but
// without `topic`, which only the service may set, and without a
// `metadataVersion` other than "1", the only one that it knows.
//
// Digital Twins writes both at an event's end, in this order or the other.
// There they are found in a few steps back from the end, instead of in a walk
// over everything, which would cost more than all else that is done here for
// an event. An event that has one of them a second time, further to the front,
// so keeps that one: such an object's meaning is anyone's guess (RFC 8259,
// section 4), and the service is left to refuse it.
func appendEvent(buf, doc []byte) []byte {
	// Copied first, whole: an event that has waited has left the caches, and
	// comes back sooner in one go than line by line from its end.
	start := len(buf)
	buf = append(buf, doc...)
	if topic, ok := topicAtEnd(buf[start:]); ok {
		return slices.Delete(buf, start+topic.start, start+topic.end)
	}
	return appendMembers(buf[:start], doc)
}

// span is a part of a document.
type span struct{ start, end int }

// topicAtEnd gives the member `topic` with the comma before it, where it and a
// metadataVersion that may stay are an object's last two members, in any order.
func topicAtEnd(doc []byte) (topic span, ok bool) {
	end := len(doc) - 1 // the brace
	version := false
	for range 2 {
		m, comma := jsonwalk.MemberBefore(doc, end)
		if comma < 0 {
			return span{}, false
		}
		switch key := doc[m.KeyStart:m.KeyEnd]; {
		case string(key) == "topic":
			topic, ok = span{comma, m.End}, true
		case string(key) == "metadataVersion" && string(doc[m.Start:m.End]) == `"1"`:
			version = true
		default:
			return span{}, false
		}
		end = comma
	}
	return topic, ok && version
}

// appendMembers walks over all members and copies what stands between those
// that are cut out.
func appendMembers(buf, doc []byte) []byte {
	cut, before := false, len(buf)
	from, to := -1, 0 // the members that are to be copied next; from -1: none
	next := func() {
		if from < 0 {
			return
		}
		separator := byte(',')
		if len(buf) == before {
			separator = '{'
		}
		buf = append(append(buf, separator), doc[from:to]...)
		from = -1
	}
	jsonwalk.Members(doc, func(m jsonwalk.Member) bool {
		if refused(doc, m) {
			cut = true
			next()
			return true
		}
		if from < 0 {
			from = m.KeyStart - 1 // with its quote
		}
		to = m.End
		return true
	})
	if !cut {
		return append(buf, doc...)
	}
	next()
	if len(buf) == before {
		buf = append(buf, '{')
	}
	return append(buf, '}')
}

func refused(doc []byte, m jsonwalk.Member) bool {
	key := doc[m.KeyStart:m.KeyEnd]
	return jsonwalk.KeyIs(key, "topic") ||
		jsonwalk.KeyIs(key, "metadataVersion") && string(doc[m.Start:m.End]) != `"1"`
}
