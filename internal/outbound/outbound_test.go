package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// proxy is the environment's. net/http reads that once, and never asks a proxy for
// this machine's own addresses, so it is no other test's.
var proxy *net.TCPListener

func TestMain(m *testing.M) {
	var err error
	if proxy, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = os.Setenv("HTTPS_PROXY", "http://"+proxy.Addr().String())
	_ = os.Unsetenv("NO_PROXY")
	goleak.VerifyTestMain(m)
}

func TestExhausted(t *testing.T) {
	t.Parallel()
	socket := func(err error) error {
		return fmt.Errorf("post: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", err)})
	}
	tests := map[string]struct {
		err  error
		want bool
	}{
		"none":                          {nil, false},
		"the process's descriptors":     {socket(syscall.EMFILE), true},
		"the machine's descriptors":     {socket(syscall.ENFILE), true},
		"the kernel's memory":           {socket(syscall.ENOBUFS), true},
		"amid a look-up":                {&net.DNSError{Err: "dial udp 10.0.0.2:53: socket: too many open files", Name: "x"}, true},
		"refused":                       {socket(syscall.ECONNREFUSED), false},
		"no route":                      {socket(syscall.EHOSTUNREACH), false},
		"no address of that kind":       {os.NewSyscallError("connect", syscall.EADDRNOTAVAIL), false},
		"no such host":                  {&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}, false},
		"a name with the words":         {&net.DNSError{Err: "no such host", Name: "too many open files"}, false},
		"a service that says the words": {errors.New("too many open files"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := isExhausted(test.err); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Not parallel: while it lasts, nothing in this process can open a file.
func TestNoDescriptorLeft(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	before := Exhausted()
	low := limit
	low.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err = New(nil, nil).Dial(t.Context(), listener.Addr().String())
	if restored := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); restored != nil {
		t.Fatal(restored)
	}
	if !errors.Is(err, syscall.EMFILE) || Exhausted() != before+1 {
		t.Errorf("%v, counted %d", err, Exhausted()-before)
	}
	conn, err := New(nil, nil).Dial(t.Context(), listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if Exhausted() != before+1 {
		t.Error("a connection that was made is counted")
	}
}

// A peer that accepts and says nothing is given up, whatever time the caller has.
func TestSilentHandshakeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := net.Pipe()
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, peer) }) // ends when the client closes
		began := time.Now()
		if _, err := new(Dialer).secure(context.Background(), client, "login.example:443"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != handshakeTimeout {
			t.Errorf("it took %v", took)
		}
		reading.Wait()
	})
}
