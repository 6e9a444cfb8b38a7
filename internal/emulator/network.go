package emulator

import (
	"net"
	"sync"
)

// Network is what lies between the embedded broker and its clients. The zero value
// works as if it weren't there. It has the two ways in which a broker can be lost:
// Cut ends what is open and what comes, as a broker that is gone does; with Freeze
// nothing arrives any more in either direction and nothing ends, as with a broker
// that is stopped or a route that is lost.
type Network struct {
	mu     sync.Mutex
	cut    bool
	thawed chan struct{} // closed by Restore; nil while nothing is frozen
	conns  map[*gatedConn]bool
}

// Cut closes every connection, and each further one as soon as it is made.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for c := range n.conns {
		_ = c.Conn.Close()
	}
}

// Freeze lets everything hang that is open or comes.
func (n *Network) Freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.thawed == nil {
		n.thawed = make(chan struct{})
	}
}

// Restore ends both. Connections that were frozen go on.
func (n *Network) Restore() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = false
	if n.thawed != nil {
		close(n.thawed)
		n.thawed = nil
	}
}

// frozen is closed when nothing is frozen any more; nil if nothing is.
func (n *Network) frozen() chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.thawed
}

// gatedListener is a listener at the broker's end of a network.
type gatedListener struct {
	net.Listener
	network *Network
}

func (l gatedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.network.admit(conn); c != nil {
			return c, nil
		}
		_ = conn.Close()
	}
}

func (n *Network) admit(conn net.Conn) *gatedConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return nil
	}
	c := &gatedConn{Conn: conn, network: n, closed: make(chan struct{})}
	if n.conns == nil {
		n.conns = make(map[*gatedConn]bool)
	}
	n.conns[c] = true
	return c
}

// gatedConn passes nothing on while its network is frozen.
type gatedConn struct {
	net.Conn
	network *Network
	once    sync.Once
	closed  chan struct{}
}

// Read keeps what has arrived until the network isn't frozen.
func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pass()
	return n, err
}

func (c *gatedConn) Write(p []byte) (int, error) {
	c.pass()
	return c.Conn.Write(p)
}

// pass blocks while the network is frozen and the connection open.
func (c *gatedConn) pass() {
	if thawed := c.network.frozen(); thawed != nil {
		select {
		case <-thawed:
		case <-c.closed:
		}
	}
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}
