package sinks

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"twinegress/internal/event"
)

const (
	// outageWindow is how long what follows a line about a host is gathered, and at
	// least the time between two lines of one cause.
	outageWindow = 5 * time.Second
	// outageQuiet is how seldom it is said, in the end, that nothing changed.
	outageQuiet = 10 * time.Minute
	// maxOutages bounds what is remembered, of hosts that may be gone. Beyond it
	// every endpoint has its line.
	maxOutages = 1000
)

// Outages write what befalls endpoints into the log: that they back off, are ready
// again, use the other key. Where a host fails, so do all of its endpoints, for one
// cause: the first has its line, and the others together have one, with their number.
// Each one's own story is in its status.
//
// The log could not do it by folding lines that are alike: these differ in their
// endpoint, and which ones belong together is known here.
type Outages struct {
	log *zap.Logger

	mu     sync.Mutex
	hosts  map[string]map[outageKey]*gathered
	count  int // outages of all hosts
	closed bool
}

// turn is what befalls an endpoint.
type turn uint8

const (
	turnBackOff turn = iota
	turnPartBackOff
	turnReady
	turnPartReady
	turnOtherKey
	turnThrottled
	turnRefuses
	turnLeft
	turnCaughtUp
)

// good reports whether it is the end of a trouble.
func (t turn) good() bool { return t == turnReady || t == turnPartReady || t == turnCaughtUp }

// together is what is said of several endpoints, by turn.
var together = [...]string{
	turnBackOff:     "more endpoints of the host back off for the same cause",
	turnPartBackOff: "parts of more endpoints of the host back off for the same cause",
	turnReady:       "more endpoints of the host are ready",
	turnPartReady:   "parts of more endpoints of the host are ready again",
	turnOtherKey:    "more endpoints of the host use their other key, for the same cause",
	turnThrottled:   "more endpoints of the host are throttled",
	turnRefuses:     "more endpoints of the host refuse one event after the other",
	turnLeft:        "more endpoints of the host fall behind",
	turnCaughtUp:    "more endpoints of the host have caught up",
}

type outageKey struct {
	turn  turn
	cause string
}

// gathered is what was said of one turn of a host's endpoints, and what is to be said.
type gathered struct {
	said  map[string]struct{} // endpoints that a line was about, by id
	next  time.Time           // when the next line may come
	pause time.Duration       // after a line that says nothing new
	timer *time.Timer         // nil: nothing is to be said

	news   int // endpoints that no line was about yet
	folded int // lines
	last   report
	off    time.Duration // the longest
	lost   lost          // by all
}

// report is one endpoint's turn.
type report struct {
	turn        turn
	host, cause string
	endpoint    string // its id
	path        string
	what        string
	log         *zap.Logger // which names the endpoint
	fields      []zap.Field
	reason      string
	err         error
	off         time.Duration
	lost        lost
}

// lost is how many events were dropped for it, by reason.
type lost [event.NumReasons]uint64

func (l *lost) add(more *lost) {
	for reason, n := range more {
		l[reason] += n
	}
}

// fields is none if nothing was lost.
func (l *lost) fields() (fields []zap.Field) {
	for reason, n := range l {
		if n > 0 {
			fields = append(fields, zap.Uint64(event.Reason(reason).String(), n))
		}
	}
	if fields == nil {
		return nil
	}
	return []zap.Field{zap.Dict("dropped", fields...)}
}

// key returns what reports of one cause have in common. A cause that nobody has a
// word for is the service's text: two of one host's endpoints differ in the name of
// their entity, and in numbers and ids.
func (r *report) key() outageKey {
	cause := r.cause
	if strings.ContainsRune(cause, ' ') {
		cause = strings.Map(func(c rune) rune {
			if c < utf8.RuneSelf && varies(byte(c)) { //nolint:gosec // it is one
				return -1
			}
			return c
		}, strings.ReplaceAll(cause, r.path, ""))
	}
	return outageKey{r.turn, cause}
}

// write writes the report's own line.
func (r report) write(more ...zap.Field) {
	fields := slices.Concat(r.fields, more)
	switch {
	case r.turn == turnLeft && r.reason != LeftFull: // somebody asked for it, or it was so before
		r.log.Info(r.what, append(fields, zap.String("reason", r.reason))...)
		return
	case r.turn.good():
		if r.off > 0 {
			fields = append(fields, zap.Duration("off", r.off))
		}
		r.log.Info(r.what, append(fields, r.lost.fields()...)...)
		return
	}
	r.log.Warn(r.what, append(fields, zap.String("reason", r.reason), zap.String("cause", r.cause), zap.Error(r.err))...)
}

// NewOutages returns outages that write to log. They have to be closed.
func NewOutages(log *zap.Logger) *Outages {
	return &Outages{log: log, hosts: make(map[string]map[outageKey]*gathered)}
}

// say writes a report, or has it wait for others like it.
func (o *Outages) say(r report) {
	if o == nil || !o.gather(r) {
		r.write()
	}
}

// gather reports whether r is written later, with others.
func (o *Outages) gather(r report) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	if r.turn == turnReady {
		o.forget(r.host, r.endpoint)
	}
	now, key := time.Now(), r.key()
	known := o.hosts[r.host][key]
	if known == nil {
		known = &gathered{said: map[string]struct{}{r.endpoint: {}}, next: now.Add(outageWindow), pause: outageWindow}
		o.add(r.host, key, known, now)
		return false
	}
	_, said := known.said[r.endpoint]
	known.said[r.endpoint] = struct{}{}
	if known.timer == nil && len(known.said) == 1 && !now.Before(known.next) {
		known.next = now.Add(outageWindow) // it is alone: each failed probe has its line
		return false
	}
	if known.folded++; !said {
		known.news++
	}
	known.last, known.off = r, max(known.off, r.off)
	known.lost.add(&r.lost)
	wait := known.next.Sub(now)
	if !said && wait > outageWindow || wait <= 0 {
		wait = outageWindow
	}
	switch {
	case known.timer == nil:
		known.timer = time.AfterFunc(wait, func() { o.flush(r.host, key) })
	case !said && known.news == 1:
		known.timer.Reset(wait) // until now it had nothing new to say
	}
	return true
}

// add remembers an outage, in the place of others that are over if need be. It must
// be called with o.mu held.
func (o *Outages) add(host string, key outageKey, added *gathered, now time.Time) {
	if o.count >= maxOutages {
		for host, of := range o.hosts {
			for key, old := range of {
				if old.timer == nil && now.After(old.next) {
					o.remove(host, key)
				}
			}
		}
	}
	if o.count >= maxOutages {
		return
	}
	if o.hosts[host] == nil {
		o.hosts[host] = make(map[outageKey]*gathered)
	}
	o.hosts[host][key] = added
	o.count++
}

func (o *Outages) remove(host string, key outageKey) {
	delete(o.hosts[host], key)
	if o.count--; len(o.hosts[host]) == 0 {
		delete(o.hosts, host)
	}
}

// forget says that an endpoint works, or is gone. It must be called with o.mu held.
func (o *Outages) forget(host, endpoint string) {
	for key, known := range o.hosts[host] {
		if key.turn == turnReady || key.turn == turnPartReady {
			continue
		}
		delete(known.said, endpoint)
		if len(known.said) > 0 || known.news > 0 {
			continue // what was not told yet is told, even if it is over by then
		}
		if known.timer != nil {
			known.timer.Stop()
		}
		o.remove(host, key)
	}
}

// gone says that an endpoint was removed, or is at another host now.
func (o *Outages) gone(host, endpoint string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(host, endpoint)
}

// flush writes what was gathered of one outage.
func (o *Outages) flush(host string, key outageKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.hosts[host][key]; known != nil && known.timer != nil {
		o.write(host, key, known)
	}
}

// write writes what was gathered. It must be called with o.mu held, so that lines
// come in the order of what they are about.
func (o *Outages) write(host string, key outageKey, known *gathered) {
	last := known.last
	switch {
	case known.folded == 1:
		last.write()
	case known.news == 0 && len(known.said) <= 1:
		last.write(zap.Int("repeated", known.folded))
	default:
		sum := report{
			turn: key.turn, cause: last.cause, what: together[key.turn], log: o.log, reason: last.reason, err: last.err,
			off: known.off, lost: known.lost,
			fields: []zap.Field{zap.String("host", host), zap.Int("endpoints", known.news)},
		}
		if known.news == 0 {
			sum.what = "endpoints of the host still fail for the same cause"
			sum.fields[1] = zap.Int("endpoints", len(known.said))
		}
		sum.write()
	}
	known.pause = min(2*known.pause, outageQuiet)
	if known.news > 0 || len(known.said) <= 1 {
		known.pause = outageWindow
	}
	known.next, known.timer = time.Now().Add(known.pause), nil
	known.news, known.folded, known.last, known.off, known.lost = 0, 0, report{}, 0, lost{}
	if key.turn.good() {
		clear(known.said) // whoever is ready another time is news
	}
}

// Close writes what was gathered, and ends the gathering.
func (o *Outages) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for host, of := range o.hosts {
		for key, known := range of {
			if known.timer != nil {
				known.timer.Stop()
				o.write(host, key, known)
			}
		}
	}
}
