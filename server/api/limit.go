package api

import (
	"crypto/sha256"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// guessBurst and guessRate limit the refused tokens of one client network: so many at
// once, then so many a second. A caller who mistypes a token stays below.
const (
	guessBurst = 20
	guessRate  = 1
)

// limiters are rate limiters by key. One that isn't used for a whole generation is
// removed; by then it has its full allowance again, unless a client uses more keys
// than a generation holds, and such a client no limit per key can stop.
type limiters[K comparable] struct {
	rate  rate.Limit
	burst int

	mu     sync.Mutex
	recent recent[K, *rate.Limiter]
}

func newLimiters[K comparable](perSecond rate.Limit, burst int) *limiters[K] {
	return &limiters[K]{rate: perSecond, burst: burst}
}

func (l *limiters[K]) of(key K) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, ok := l.recent.get(key)
	if !ok {
		one = rate.NewLimiter(l.rate, l.burst)
	}
	l.recent.put(key, one)
	return one
}

// recent is a bounded map, in two generations: what isn't put again for a whole
// generation is forgotten.
type recent[K comparable, V any] struct{ now, old map[K]V }

const generation = 4096

func (m *recent[K, V]) get(key K) (V, bool) {
	v, ok := m.now[key]
	if !ok {
		v, ok = m.old[key]
	}
	return v, ok
}

func (m *recent[K, V]) put(key K, v V) {
	if _, ok := m.now[key]; !ok && len(m.now) >= generation {
		m.old, m.now = m.now, nil
	}
	if m.now == nil {
		m.now = make(map[K]V)
	}
	m.now[key] = v
}

func (m *recent[K, V]) remove(key K) {
	delete(m.now, key)
	delete(m.old, key)
}

// shownFor is how long a token that was accepted keeps access for its network.
const shownFor = time.Hour

// shown are the tokens that were accepted lately, each with the network that it came
// from: a neighbour who guesses, or has forgotten an old token in a dashboard, doesn't
// lock out who has shown a right one. A guess gains nothing from it: to be in it, a
// token must be right. They are known by their hashes, of which the time of a look-up
// says nothing about a token.
type shown struct {
	mu     sync.Mutex
	recent recent[shownToken, time.Time] // to when it was accepted last
}

type shownToken struct {
	from netip.Prefix
	hash [sha256.Size]byte
}

func (s *shown) lately(t shownToken) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.recent.get(t)
	return ok && time.Since(at) < shownFor
}

func (s *shown) accepted(t shownToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.put(t, time.Now())
}

func (s *shown) refused(t shownToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.remove(t)
}

// clientNetwork returns the network that a request comes from: an IPv4 address, or an
// IPv6 /64, which one subscriber has.
func clientNetwork(r *http.Request) netip.Prefix {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{} // not TCP: all share one limit
	}
	bits := 32
	addr := at.Addr().Unmap()
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // fails only for an invalid number of bits
	return prefix
}

// tooMany returns the reply to a caller over the limit.
func tooMany(l *rate.Limiter, message string) *Error {
	missing := (1 - l.TokensAt(time.Now())) / float64(l.Limit())
	seconds := max(1, int(math.Ceil(missing)))
	return failure(http.StatusTooManyRequests, message).with("Retry-After", strconv.Itoa(seconds))
}
