package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// Failure is why nothing can be had from a host: what that is, in a word and in a
// sentence that says what to do, before the words of who noticed it. It is made
// where the host is known: the SDKs keep errors as text, and drop their types.
type Failure struct {
	Cause string // one word, the same for all that fail alike
	What  string
	Err   error // nil: What is all there is to say
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return f.What
	}
	return f.What + " (" + f.Err.Error() + ")"
}

func (f *Failure) Unwrap() error { return f.Err }

// The causes of failures that are the network's or the host's.
const (
	CauseUnknownHost = "unknown_host"
	CauseRefused     = "connection_refused"
	CauseNoRoute     = "no_route"
	CauseSilent      = "no_answer"
	CauseCertificate = "certificate"
	CauseNoTLS       = "no_tls"
	CauseLost        = "connection_lost"
	CauseShortage    = "no_descriptor"
	CauseNotAllowed  = "not_allowed"
)

// Explain returns the Failure that an error of a connection to host has in it or
// means, or the error itself if it means none that is known.
func Explain(err error, host string) error {
	if err == nil {
		return nil
	}
	if f, is := errors.AsType[*Failure](err); is {
		return f
	}
	if cause, what := explain(err, host); cause != "" {
		return &Failure{cause, what, err}
	}
	return err
}

// notAllowed returns the Failure of an error of Hosts.
func notAllowed(err error) error {
	if err == nil {
		return nil
	}
	return &Failure{Cause: CauseNotAllowed, What: err.Error()}
}

func explain(err error, host string) (cause, what string) {
	if cause, what := explainCertificate(err, host); cause != "" {
		return cause, what
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok && !isExhausted(err) {
		if e.IsNotFound {
			return CauseUnknownHost, fmt.Sprintf("there is no host %s: correct the endpoint's host; for a topic or namespace that was deleted or is in another region, take the host that the portal shows", host)
		}
		return CauseUnknownHost, fmt.Sprintf("the name of %s can't be resolved, the DNS doesn't answer: check the DNS of this machine", host)
	}
	timeout, _ := errors.AsType[net.Error](err)
	dialling, _ := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return CauseRefused, host + " refuses connections: nothing listens on that port, or a firewall is in between"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return CauseNoRoute, fmt.Sprintf("there is no route to %s: check the network, and that a private endpoint or a VPN is up", host)
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		if dialling != nil && dialling.Op == "dial" {
			return CauseSilent, host + " can't be connected to, nothing answers: check firewalls, the address and the network in between"
		}
		return CauseSilent, host + " takes connections and doesn't answer: the service hangs, or something in between holds its answers back"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return CauseLost, fmt.Sprintf("the connection to %s was lost: the service or something in between ended it", host)
	}
	return "", ""
}

// explainCertificate tells why there is no TLS with a host.
func explainCertificate(err error, host string) (cause, what string) {
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		return CauseCertificate, fmt.Sprintf("the certificate of %s is from an authority that this process doesn't trust: if a proxy inspects TLS or the service has its own authority, name that in send.caFile", host)
	}
	if e, is := errors.AsType[x509.HostnameError](err); is {
		names := "another host"
		if e.Certificate != nil && len(e.Certificate.DNSNames) > 0 {
			names = strings.Join(e.Certificate.DNSNames[:min(3, len(e.Certificate.DNSNames))], ", ")
		}
		return CauseCertificate, fmt.Sprintf("%s shows a certificate of %s: it is another service or region than the endpoint's host names, or a proxy answers for it", host, names)
	}
	if e, is := errors.AsType[x509.CertificateInvalidError](err); is {
		if e.Reason == x509.Expired {
			return CauseCertificate, fmt.Sprintf("the certificate of %s has expired or is not valid yet: renew it there, or set the clock of this machine", host)
		}
		return CauseCertificate, fmt.Sprintf("the certificate of %s is not valid: replace it there", host)
	}
	if _, is := errors.AsType[tls.RecordHeaderError](err); is {
		return CauseNoTLS, host + " doesn't speak TLS: correct the port of the endpoint's host"
	}
	if _, is := errors.AsType[tls.AlertError](err); is {
		return CauseNoTLS, host + " refuses TLS with this process: its versions or ciphers are too old, or it doesn't serve this name"
	}
	return "", ""
}
