package ingest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/blackhole"
	"twinegress/internal/eventually"
)

// A stop doesn't wait for what the brokers are asked at that time: where
// partitions end, and where to go on. What the client asks while it connects
// doesn't end with the context of who wants to know.
func TestStopWhileBrokersHang(t *testing.T) {
	for name, connected := range map[string]bool{"connected": true, "connecting": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := broker(t, 1)
			produce(t, k, 1, 10, 10)
			var network cutNetwork
			h := consume(t, ingestConfig(k), true, kgo.Dialer(network.dial))
			eventually.Holds(t, "all is read", func() bool { return h.count() == 10 })
			network.Begin()
			if !connected {
				network.cut()
			}
			lost := network.Lost()
			h.partitions.all()[0].block(outOfRange, -1)
			signal(h.seeker.due)
			signal(h.offsets.due)
			eventually.Holds(t, "the answers are lost", func() bool { return network.Lost() >= lost+2 })
			h.cancel()
			select {
			case <-h.done:
			case <-time.After(3 * time.Second): // the client's own time-outs are 10 s and more
				t.Error("Run waits for the brokers")
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = h.Close(ctx)
			<-h.done
		})
	}
}

// cutNetwork is a network whose connections can be cut.
type cutNetwork struct {
	blackhole.Network
	mu    sync.Mutex
	conns []net.Conn
}

func (n *cutNetwork) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := n.Dial(ctx, network, address)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, c)
	return c, err
}

func (n *cutNetwork) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
}
