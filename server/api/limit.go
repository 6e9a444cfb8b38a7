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

// guessBurst and guessRate limit the refused tokens of one client network: so many at
// once, then so many a second. A caller who mistypes a token stays below.
const (
	guessBurst = 20
	guessRate  = 1
)

// limiters are rate limiters by key, in two generations of a bounded map. A limiter
// that isn't used for a whole generation is removed; by then it has its full
// allowance again, unless a client uses more keys than a generation holds, and
// such a client no limit per key can stop.
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
