// Package outbound makes the connections to endpoints and to Entra ID: where they
// may go, whom they trust, how much of a reply is read, and what is said where
// this process has no descriptor left for one.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// connectTimeout bounds connecting to one address; the whole is bounded by the
// caller's context. It is net/http's own.
const connectTimeout = 30 * time.Second

// handshakeTimeout bounds the TLS handshake, as net/http does. It dials with a
// context that does not end with the request's: without a bound here, a peer that
// accepts and says nothing would keep a connection for each request for ever.
const handshakeTimeout = 10 * time.Second

// Dialer makes connections. The nil Dialer connects to any host and trusts the
// system's certificates.
type Dialer struct {
	hosts *Hosts
	roots func() *x509.CertPool
}

// New returns a dialer. hosts are where endpoints may be; nil is anywhere. roots
// returns the trusted root certificates, for each connection anew, so that they can
// change meanwhile; nil is the system's.
func New(hosts *Hosts, roots func() *x509.CertPool) *Dialer {
	return &Dialer{hosts: hosts, roots: roots}
}

// Dial connects to an endpoint, if it may be there.
func (d *Dialer) Dial(ctx context.Context, address string) (net.Conn, error) {
	if d == nil || d.hosts == nil {
		return dial(ctx, address, nil)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if err := d.hosts.checkName(host); err != nil {
		return nil, notAllowed(err)
	}
	// The address is checked amid the dialling, when the name is resolved for good:
	// a look-up of our own before it could have another answer.
	return dial(ctx, address, func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		return notAllowed(d.hosts.checkResolved(host, resolved))
	})
}

// DialTLS connects to an endpoint, if it may be there, over TLS.
func (d *Dialer) DialTLS(ctx context.Context, address string) (net.Conn, error) {
	conn, err := d.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return d.secure(ctx, conn, address)
}

func (d *Dialer) secure(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secured := tls.Client(conn, d.TLS(host))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // nothing was sent
		return nil, HandshakeFailed(err, address)
	}
	return secured, nil
}

// HandshakeFailed returns the error of a TLS handshake with an address.
func HandshakeFailed(err error, address string) error {
	return Explain(fmt.Errorf("TLS handshake: %w", err), address)
}

// TLS returns the configuration of one connection to a host.
func (d *Dialer) TLS(host string) *tls.Config {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if d != nil && d.roots != nil {
		c.RootCAs = d.roots()
	}
	return c
}

func dial(ctx context.Context, address string, control func(context.Context, string, string, syscall.RawConn) error) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout, ControlContext: control}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if isExhausted(err) {
		exhausted.Add(1)
		return nil, &Failure{CauseShortage, "this process can open no more connections", err}
	}
	return conn, Explain(err, address)
}

// exhausted is the process's, as what it counts is.
var exhausted atomic.Uint64

// Exhausted returns how many connections could not be made because this process,
// or its machine, has no descriptor or no memory left for one. None of the
// endpoints is to blame for that.
func Exhausted() uint64 { return exhausted.Load() }

// shortages are what socket(2) fails with where no peer is at fault. EADDRNOTAVAIL is
// none of them: it means that no local port is free, but also that a host has an
// IPv6 address and this machine has none, which stays so.
var shortages = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

func isExhausted(err error) bool {
	for _, shortage := range shortages {
		if errors.Is(err, shortage) {
			return true
		}
		// The resolver, which opens sockets of its own, keeps the cause as text. The
		// text is of this machine, not of a peer.
		if e, ok := errors.AsType[*net.DNSError](err); ok && strings.Contains(e.Err, shortage.Error()) {
			return true
		}
	}
	return false
}
