package app

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
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
	open, err := Openers(cfg)
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
	if _, err := Openers(cfg); err == nil {
		t.Error("rules that are none are taken")
	}
}
