// Package blackhole dials, for tests, through a network that can be made to lose
// every reply: requests arrive, and no answer comes back.
package blackhole

import (
	"context"
	"net"
	"sync/atomic"
)

// Network loses every reply after Begin.
type Network struct {
	on   atomic.Bool
	lost atomic.Int32
}

// Begin makes the network lose all replies from now on.
func (s *Network) Begin() { s.on.Store(true) }

// Lost returns the number of reads that were lost.
func (s *Network) Lost() int { return int(s.lost.Load()) }

// Dial dials as a net.Dialer's DialContext does.
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

// Read discards lost replies and blocks until the connection is closed or its
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
