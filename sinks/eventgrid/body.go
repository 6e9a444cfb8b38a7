package eventgrid

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"twinegress/internal/event"
	"twinegress/internal/jsonwalk"
)

// buffers are reused for bodies. A new megabyte for each batch would be most of
// this sink's garbage.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is the largest buffer that is kept: a full request, and the event
// that did not fit any more.
const maxPooled = 2 * maxBytes

// build returns the JSON array of as many events as fit in one request, at least
// one, of any size, and how many those are. It is built in buf. One that can't fit,
// whatever is taken out of it, ends it without being copied.
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
			if len(ev.Body) > maxPooled {
				return append(body, ']'), i
			}
			body = append(body, ',')
		}
		body = appendEvent(body, ev.Body)
		if len(body)+1 > maxBytes && i > 0 {
			return append(body[:end], ']'), i
		}
	}
	return append(body, ']'), len(events)
}

// reader is a request's body. net/http reads it in a goroutine of its own, and
// may go on after the request has returned, where it failed or was answered
// early. After release, Read returns an error, so that the buffer can be another
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

// appendEvent appends an event as Event Grid accepts it: its own bytes, but
// without `topic`, which only the service may set, and without a
// `metadataVersion` other than "1", the only valid one.
//
// Digital Twins writes both at an event's end, in this order or the other.
// There they are found in a few steps back from the end. To scan the whole event
// would cost more than all else that is done here for it. An event that has one
// of them a second time, nearer to its start, keeps that one: the meaning of such
// an object is undefined (RFC 8259, section 4), and the service may refuse it.
func appendEvent(buf, doc []byte) []byte {
	// The whole is copied first: an event that has waited is in no cache any
	// more, and one copy loads it sooner than steps back from its end.
	start := len(buf)
	buf = append(buf, doc...)
	if topic, ok := topicAtEnd(buf[start:]); ok {
		return slices.Delete(buf, start+topic.start, start+topic.end)
	}
	return appendMembers(buf[:start], doc)
}

// span is a part of a document.
type span struct{ start, end int }

// topicAtEnd returns the member `topic` with the comma before it, where it and a
// valid metadataVersion are an object's last two members, in either order.
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

// appendMembers appends an object without the members that Event Grid refuses,
// in runs of the others.
func appendMembers(buf, doc []byte) []byte {
	cut, before := false, len(buf)
	from, to := -1, 0 // the run that is to be copied next; from -1: none
	copyRun := func() {
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
			copyRun()
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
	copyRun()
	if len(buf) == before {
		buf = append(buf, '{')
	}
	return append(buf, '}')
}

// refused reports whether Event Grid refuses the member.
func refused(doc []byte, m jsonwalk.Member) bool {
	key := doc[m.KeyStart:m.KeyEnd]
	return jsonwalk.KeyIs(key, "topic") ||
		jsonwalk.KeyIs(key, "metadataVersion") && string(doc[m.Start:m.End]) != `"1"`
}
