package ingest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/blackhole"
	"twinegress/internal/event"
)

// A stop takes no longer than it may when a broker no longer answers: neither
// the commit that is under way, nor the one before the end, nor the leaving.
func TestCloseWhileTheBrokerIsSilent(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		k := broker(t, 1)
		c := ingestConfig(k)
		c.Protocol, c.InstanceID = protocol, "a"
		var network blackhole.Network
		core, logs := observer.New(zap.WarnLevel)
		source, err := New(c, []kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.Dialer(network.Dial)}, noHook{}, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		var settled atomic.Int32
		go func() {
			ended <- source.Run(ctx, func(c *event.Chunk) {
				c.Settle(1)
				settled.Add(1)
			})
		}()
		produce(t, k, 1, 1, 10)
		eventually(t, "an event is settled", func() bool { return settled.Load() == 1 })
		network.Begin()
		eventually(t, "the commit has no answer", func() bool { return network.Lost() > 1 }) // the other one is the fetch's
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		closing, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if err := source.Close(closing); err == nil {
			t.Error("Close says that it committed")
		}
		for _, untrue := range []string{"not a member", "partitions lost"} {
			if logs.FilterMessageSnippet(untrue).Len() > 0 {
				t.Errorf("logged %q: it was stopped", untrue)
			}
		}
		if took := time.Since(begun); took > 5*time.Second { // the client's own patience is 10 s and more
			t.Errorf("Close took %v", took)
		}
	})
}
