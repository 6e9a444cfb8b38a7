// Package blackhole is for tests: a network whose other side takes requests and,
// from some moment on, never answers.
package blackhole

import (
	"context"
	"net"
	"sync/atomic"
)

// Network loses every reply while it is on.
type Network struct {
	on   atomic.Bool
	lost atomic.Int32
}

// Begin loses all replies from now on.
func (s *Network) Begin() { s.on.Store(true) }

// Lost is how many reads were lost so far.
func (s *Network) Lost() int { return int(s.lost.Load()) }

// Dial is a net.Dialer's DialContext.
func (s *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn{c, s}, nil
}

type conn struct {
	net.Conn
	network *Network
}

// Read waits on, past what is lost, until the connection is closed or its
// deadline passes.
func (c conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.network.on.Load() {
			return n, err
		}
		c.network.lost.Add(1)
	}
}
