package deadletter

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/event"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
)

const (
	// fewElements is of how many elements of an array the letters repeat all that
	// belongs to the record, its key and its headers: those before this index.
	// An array can have a hundred thousand elements, and headers of a megabyte.
	fewElements = 8
	// The letter of an element behind them repeats of these elementShare times
	// the element's own size, or minShare bytes: enough for what a usual record
	// has. So all letters of a record are a small multiple of it, and of what the first
	// few say of themselves: at most 1,600 characters each, in detail and the
	// endpoint's name, which is no more than as many records of one event cost.
	elementShare = 4
	minShare     = 256
	// elementDetail bounds such a letter's detail, in bytes.
	elementDetail = 200

	// maxElements bounds the list of elements that a letter is for, in bytes.
	maxElements = 1000

	// cutValue and cutShare are what is kept of a letter that can't be stored as
	// it is: bytes of the value, and of key and headers.
	cutValue = 64 << 10
	cutShare = 16 << 10

	// maxHeaders is how many headers of a record a letter repeats: each costs
	// memory beyond its bytes, and records with millions of empty ones exist.
	maxHeaders = 10_000
	// shareHeaders is how many are looked at where not all are repeated.
	shareHeaders = 64

	// ownBytes is what our own headers take beyond their longer values.
	ownBytes = 512
)

// form is how much of a letter is stored.
type form uint8

const (
	whole form = iota
	cut        // the value's first bytes, and some of the headers
	bare       // our own headers
)

// letter is a dead letter that is not stored yet. It is small, and made a record
// only when it is produced.
type letter struct {
	event    *event.Event
	reason   event.Reason
	detail   string
	elements string           // of the record's array, where the letter is for many of them
	to       *sinks.Recipient // nil before it was routed
	time     time.Time

	form  form
	alone bool   // it is to be produced in a batch of its own
	sum   string // SHA-256 of the value, of a letter that isn't whole
	err   error  // of the last try
}

// shorten makes the letter one of which less is stored. It reports whether that
// is possible.
func (l *letter) shorten() bool {
	if l.form == bare {
		return false
	}
	if l.form++; l.sum == "" {
		sum := sha256.Sum256(l.event.Body)
		l.sum = hex.EncodeToString(sum[:])
	}
	return true
}

// size is about what the letter takes, not less.
func (l *letter) size() int {
	own := ownBytes + len(l.detail) + len(l.elements) + len(l.event.Chunk.Topic)
	if l.to != nil {
		own += len(l.to.ID) + len(l.to.Name) + len(l.to.Target)
	}
	n := own + min(len(l.event.Body), l.valueLimit())
	if share := l.share(); share < math.MaxInt {
		return n + share
	}
	n += len(l.event.Record.Key)
	for _, h := range l.event.Record.Headers[:min(len(l.event.Record.Headers), maxHeaders)] {
		n += headerSize(h)
	}
	return n
}

// headerSize is what a header takes in a record: its name, its value and the
// lengths of both.
func headerSize(h event.Header) int { return len(h.Key) + len(h.Value) + 8 }

// share returns how many bytes of the record's key and headers the letter repeats.
func (l *letter) share() int {
	share := math.MaxInt
	if l.event.Index >= fewElements {
		share = max(minShare, elementShare*len(l.event.Body))
	}
	switch l.form {
	case cut:
		share = min(share, cutShare)
	case bare:
		share = 0
	}
	return share
}

// record returns the letter as it is stored. Our headers come first, `time` the
// last of them; the source record's own are behind it. `cut` names what of the
// record is not all there: value, key, headers.
func (l *letter) record() *kgo.Record {
	ev, c, r := l.event, l.event.Chunk, l.event.Record
	key, own, missing := l.repeated()
	value := ev.Body
	if limit := l.valueLimit(); len(value) > limit {
		value = value[:limit]
		missing = append(missing, "value")
	}

	headers := make([]kgo.RecordHeader, 0, 14+len(own))
	headers = append(headers,
		header("reason", l.reason.String()),
		header("detail", l.detail),
		header("topic", c.Topic),
		header("partition", strconv.Itoa(int(c.Partition))),
		header("offset", strconv.FormatInt(r.Offset, 10)),
	)
	if ev.Index != event.NoIndex {
		headers = append(headers, header("index", strconv.Itoa(int(ev.Index))))
	}
	if l.elements != "" {
		headers = append(headers, header("elements", l.elements))
	}
	if l.to != nil {
		headers = append(headers, header("endpoint", l.to.ID))
		// Of a tiny element there would be more in these than in the element.
		if l.event.Index < fewElements {
			if l.to.Name != "" {
				headers = append(headers, header("endpointName", l.to.Name))
			}
			headers = append(headers, header("endpointTarget", l.to.Target))
		}
	}
	if len(missing) > 0 {
		headers = append(headers, header("cut", strings.Join(missing, ",")))
	}
	if l.sum != "" {
		headers = append(headers, header("length", strconv.Itoa(len(ev.Body))), header("sha256", l.sum))
	}
	headers = append(headers, header("time", l.time.UTC().Format(time.RFC3339Nano)))
	for _, h := range own {
		headers = append(headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return &kgo.Record{Partition: c.Partition, Key: key, Value: value, Headers: headers}
}

func (l *letter) valueLimit() int {
	switch l.form {
	case whole:
		return math.MaxInt
	case cut:
		return cutValue
	}
	return 0
}

// repeated returns what the letter has of its record's key and headers, and the
// names of what isn't all there. The key comes first: it is a name, mostly, and
// headers can be anything.
func (l *letter) repeated() (key []byte, own []event.Header, missing []string) {
	r, share := l.event.Record, l.share()
	if share == math.MaxInt {
		if len(r.Headers) > maxHeaders {
			return r.Key, r.Headers[:maxHeaders], []string{"headers"}
		}
		return r.Key, r.Headers, nil
	}
	if len(r.Key) <= share {
		key = r.Key
		share -= len(r.Key)
	} else {
		missing = append(missing, "key")
	}
	for _, h := range r.Headers[:min(len(r.Headers), shareHeaders)] {
		if n := headerSize(h); n <= share {
			own = append(own, h)
			share -= n
		}
	}
	if len(own) < len(r.Headers) {
		missing = append(missing, "headers")
	}
	return key, own, missing
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

// fields tell in the log whose letter it is, why it is told of, and what would
// have helped, if that is known.
func (l *letter) fields(why, needed string) []zap.Field {
	ev := l.event
	to := l.to
	if to == nil {
		to = &sinks.Recipient{}
	}
	fields := []zap.Field{
		zap.String("topic", ev.Chunk.Topic), zap.Int32("partition", ev.Chunk.Partition), zap.Int64("offset", ev.Record.Offset),
		zap.Int32("index", ev.Index), zap.String("endpoint", to.ID), zap.String("name", to.Name), zap.Stringer("reason", l.reason), zap.Int("bytes", len(ev.Body)),
		zap.String("error", why),
	}
	if needed != "" {
		fields = append(fields, zap.String("needed", needed))
	}
	return fields
}

// text is a codec's or a service's words, as they are stored.
type text struct{ given, long, short string }

func newText(s string) *text {
	t := &text{given: s, long: untrusted.Text(s)}
	t.short = t.long
	if len(t.short) > elementDetail {
		t.short = strings.ToValidUTF8(t.short[:elementDetail], "") + "…" // not half a character
	}
	return t
}

// elements are the numbers of a record's elements, in ascending order, as they
// are told: 0-17,23.
type elements struct {
	n           int
	detail      string // of the first
	first, last int32  // of the present run
	b           strings.Builder
}

func (e *elements) add(index int32, detail string) {
	switch {
	case e.n == 0:
		e.first, e.detail = index, detail
	case index != e.last+1:
		e.flush()
		e.first = index
	}
	e.last = index
	e.n++
}

// flush writes the present run. What is over the limit is told by its number
// alone, at the end: the letter has the whole record.
func (e *elements) flush() {
	if e.b.Len() > maxElements {
		return
	}
	if e.b.Len() > 0 {
		e.b.WriteByte(',')
	}
	e.b.WriteString(strconv.Itoa(int(e.first)))
	if e.last > e.first {
		e.b.WriteString("-" + strconv.Itoa(int(e.last)))
	}
}

func (e *elements) String() string {
	e.flush()
	if e.b.Len() > maxElements {
		return fmt.Sprintf("%s,… %d in all", e.b.String(), e.n)
	}
	return e.b.String()
}
