package server

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// The most connections that clients may have: to the Management API, and to
// metrics and health. Both are far more than their clients need, and a small part
// of the descriptors that a process usually has.
const (
	APIConnections = 512
	OpsConnections = 64
)

const (
	// descriptorShare is the part of the process's descriptors that a listener
	// takes at most, an eighth: the rest is for sending and the brokers.
	descriptorShare = 8
	// minConnections is what a listener has with however few descriptors.
	minConnections = 8
)

// connections bounds how many connections of a listener are open. A new one that is
// beyond the bound takes the place of an old one: of the one that is idle longest,
// and if none is idle, of the one whose request takes longest. A bound on accepting
// (netutil.LimitListener) would let whoever opens that many, and needs no token for
// it, lock out everybody else.
type connections struct {
	net.Listener
	most int
	key  string // of the address in the configuration
	log  *zap.Logger

	mu      sync.Mutex
	open    map[*connection]bool // to whether it is idle
	changes uint64
	evicted uint64
	warned  rate.Sometimes
}

// connection is one of them. The listener's lock guards its fields.
type connection struct {
	net.Conn
	of    *connections
	since uint64 // the number of its last change of state
}

func limit(l net.Listener, key string, most int, log *zap.Logger) *connections {
	if n := descriptors(); n > 0 {
		most = min(most, max(minConnections, n/descriptorShare))
	}
	return &connections{
		Listener: l, most: most, key: key, log: log,
		open: make(map[*connection]bool), warned: rate.Sometimes{Interval: time.Minute},
	}
}

// Accept returns the next connection, and closes another one if there are too many.
func (l *connections) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: raw, of: l}
	if victim := l.add(c); victim != nil {
		_ = victim.Close() // its server's goroutine sees it, and ends
		l.warned.Do(func() {
			l.log.Warn("there are too many connections: for each new one the one that is idle longest is closed",
				zap.String("listener", l.key), zap.Int("most", l.most), zap.String("from", c.RemoteAddr().String()))
		})
	}
	return c, nil
}

// add adds a connection, and returns the one that it takes the place of, or nil.
func (l *connections) add(c *connection) (victim *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.most {
		for one, idle := range l.open {
			if victim == nil || idle && !l.open[victim] || idle == l.open[victim] && one.since < victim.since {
				victim = one
			}
		}
		delete(l.open, victim)
		l.evicted++
	}
	l.changes++
	c.since = l.changes
	l.open[c] = true
	return victim
}

// changed notes the state of a connection; http.Server calls it. A connection is new,
// hence idle, until it has sent a whole header.
func (l *connections) changed(conn net.Conn, state http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, ok := conn.(*connection)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.open[c]; !open {
		return
	}
	l.changes++
	c.since = l.changes
	l.open[c] = state != http.StateActive
}

// count returns how many connections had to go for others so far.
func (l *connections) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.evicted
}

// Close closes the connection, and makes room for another.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
