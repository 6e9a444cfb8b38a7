package outbound

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestExplain(t *testing.T) {
	dialled := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	tests := map[string]struct {
		err         error
		cause, says string // "": the error itself
	}{
		"nothing":           {nil, "", ""},
		"unknown":           {errors.New("?"), "", "?"},
		"no such host":      {dialled(&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}), CauseUnknownHost, "there is no host h:1"},
		"no DNS":            {dialled(&net.DNSError{Err: "timeout", Name: "h", IsTimeout: true}), CauseUnknownHost, "the DNS doesn't answer"},
		"refused":           {dialled(os.NewSyscallError("connect", syscall.ECONNREFUSED)), CauseRefused, "h:1 refuses connections"},
		"no route":          {dialled(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), CauseNoRoute, "there is no route to h:1"},
		"no network":        {dialled(os.NewSyscallError("connect", syscall.ENETUNREACH)), CauseNoRoute, "there is no route to h:1"},
		"dial time-out":     {dialled(os.ErrDeadlineExceeded), CauseSilent, "h:1 can't be connected to"},
		"time-out":          {context.DeadlineExceeded, CauseSilent, "h:1 takes connections and doesn't answer"},
		"reset":             {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, CauseLost, "the connection to h:1 was lost"},
		"cancelled":         {context.Canceled, "", "context canceled"},
		"invalid":           {x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}, CauseCertificate, "the certificate of h:1 is not valid"},
		"another's":         {x509.HostnameError{Host: "h", Certificate: new(x509.Certificate)}, CauseCertificate, "h:1 shows a certificate of another host"},
		"explained already": {fmt.Errorf("dial: %w", &Failure{Cause: "c", What: "w", Err: errors.New("e")}), "c", "w (e)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := Explain(test.err, "h:1")
			if test.err == nil {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			f, is := errors.AsType[*Failure](err)
			if is != (test.cause != "") || is && f.Cause != test.cause || !strings.HasPrefix(err.Error(), test.says) && !strings.Contains(err.Error(), ", "+test.says) {
				t.Errorf("got %v, want %s: %s", err, test.cause, test.says)
			}
			if test.cause != "c" && !errors.Is(err, test.err) {
				t.Error("the error itself is lost")
			}
			// The AMQP SDKs rebuild a connection for errors of this type alone.
			if _, network := errors.AsType[net.Error](test.err); network {
				if _, still := errors.AsType[net.Error](err); !still {
					t.Error("it is no net.Error any more")
				}
			}
		})
	}
}
