package app

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/certtest"
	"twinegress/internal/config"
	"twinegress/sinks"
)

// What a name resolves to is checked for every type of endpoint, with a key or an
// identity, before a byte goes there; the error names the rule and the key.
func TestHostsAreCheckedForEachType(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	connected := make(chan struct{})
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_ = conn.Close()
			close(connected)
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	host := "localhost:" + port
	keys := "Endpoint=sb://" + host + "/;SharedAccessKeyName=send;SharedAccessKey=a2V5LW9mLXRoZS10ZXN0"
	cfg := config.Default()
	open, err := Openers(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []endpoints.Endpoint{
		{Type: endpoints.TypeEventHub, Path: "hub", ConnectionString: keys},
		{Type: endpoints.TypeServiceBus, Path: "topic", ConnectionString: keys},
		{Type: endpoints.TypeEventGrid, Path: host, ConnectionString: "a2V5LW9mLXRoZS10ZXN0"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := sinks.Check(ctx, open[e.Type], e, sinks.Primary)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "is loopback, and not among endpoints.hosts.allow") {
			t.Errorf("%s: %v", e.Type, err)
		}
	}
	select {
	case <-connected:
		t.Error("something connected")
	default:
	}
	if endpointRules(cfg).CheckHost("127.0.0.1:443") == nil {
		t.Error("an address that is not allowed is not refused by itself")
	}

	cfg.Endpoints.Hosts.Deny = []string{"a b"}
	if _, err := Openers(cfg, zap.NewNop()); err == nil {
		t.Error("rules that are none are taken")
	}
}

// An authority that was renewed on disk is trusted by the next connection, of every
// type of endpoint.
func TestNewAuthorityIsTrusted(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for _, which := range []string{"old", "new"} {
		files[which+".pem"], files[which+".key"] = filepath.Join(dir, which+".pem"), filepath.Join(dir, which+".key")
		certtest.Write(t, files[which+".pem"], files[which+".key"])
	}
	pair, err := tls.LoadX509KeyPair(files["new.pem"], files["new.key"])
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	var shaken atomic.Int32 // hands: with clients that trust it
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if conn.(*tls.Conn).Handshake() == nil {
				shaken.Add(1)
			}
			_ = conn.Close()
		}
	})
	defer serving.Wait()
	defer listener.Close()

	cfg := config.Default()
	cfg.Endpoints.AllowDevelopmentEmulator = true
	cfg.Send.CAFile = filepath.Join(dir, "ca.pem")
	replaced := time.Now()
	replace := func(with string) {
		t.Helper()
		pem, err := os.ReadFile(with)
		replaced = replaced.Add(time.Second) // a file system's clock is too coarse for a test
		if err := errors.Join(err, os.WriteFile(cfg.Send.CAFile, pem, 0o600), os.Chtimes(cfg.Send.CAFile, replaced, replaced)); err != nil {
			t.Fatal(err)
		}
	}
	host := listener.Addr().String()
	keys := "Endpoint=sb://" + host + "/;SharedAccessKeyName=send;SharedAccessKey=a2V5LW9mLXRoZS10ZXN0"
	for _, e := range []endpoints.Endpoint{
		{Type: endpoints.TypeEventHub, Path: "hub", ConnectionString: keys},
		{Type: endpoints.TypeServiceBus, Path: "topic", ConnectionString: keys},
		{Type: endpoints.TypeEventGrid, Path: host, ConnectionString: "a2V5LW9mLXRoZS10ZXN0"},
	} {
		replace(files["old.pem"])
		open, err := Openers(cfg, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		replace(files["new.pem"])
		before := shaken.Load()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err = sinks.Check(ctx, open[e.Type], e, sinks.Primary)
		cancel()
		if shaken.Load() == before || err == nil || strings.Contains(err.Error(), "authority") {
			t.Errorf("%s: %v", e.Type, err)
		}
	}
}
