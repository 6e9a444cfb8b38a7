package api

import (
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How fast a token can be guessed from one address: guessBurst refusals at
// once, then guessRate a second. A caller who mistyped does not notice.
const (
	guessBurst = 20
	guessRate  = 1
)

// limiters are rate limiters by key. They are two generations of a bounded
// map: what was not asked for during a whole generation is forgotten, which by
// then has its full allowance again unless somebody sends from more keys than
// a generation holds, and who can do that is stopped by no limit per key.
type limiters[K comparable] struct {
	rate  rate.Limit
	burst int

	mu       sync.Mutex
	now, old map[K]*rate.Limiter
}

const generation = 4096

func newLimiters[K comparable](perSecond rate.Limit, burst int) *limiters[K] {
	return &limiters[K]{rate: perSecond, burst: burst, now: make(map[K]*rate.Limiter)}
}

func (l *limiters[K]) of(key K) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.now[key]; one != nil {
		return one
	}
	one := l.old[key]
	if one == nil {
		one = rate.NewLimiter(l.rate, l.burst)
	}
	if len(l.now) >= generation {
		l.old, l.now = l.now, make(map[K]*rate.Limiter)
	}
	l.now[key] = one
	return one
}

// guesser is who a request comes from, as far as guessing goes. In IPv6 a
// subscriber has a whole /64 to call from.
func guesser(r *http.Request) netip.Prefix {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{} // not from TCP: they share one limit
	}
	bits := 32
	addr := at.Addr().Unmap()
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // fails for an impossible number of bits only
	return prefix
}

// tooMany is the reply to who asks too often.
func tooMany(l *rate.Limiter, message string) *Error {
	missing := (1 - l.TokensAt(time.Now())) / float64(l.Limit())
	seconds := max(1, int(math.Ceil(missing)))
	return failure(http.StatusTooManyRequests, message).with("Retry-After", strconv.Itoa(seconds))
}
