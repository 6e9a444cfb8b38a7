package sinktest

import (
	"context"
	"testing"

	"twinegress/internal/emulator"
	"twinegress/sinks"
)

// RunShrunk replaces a hub by one of the same name with fewer partitions. The
// sink asked for them once, so what goes to the others fails; the endpoint has
// to find its way without being changed.
func RunShrunk(t *testing.T, s Service) {
	r := newRig(t, s, cell{name: "shrunk"}, false)
	r.three("before")
	r.expect("before", r.settled(), 6, 0)
	address := r.emulator.AMQPAddr()
	if err := r.emulator.Close(); err != nil {
		t.Fatal(err)
	}
	r.emulator = s.start(t, r.keys, func(c *emulator.Config) {
		c.AMQPListen, c.Hubs[0].Partitions = address, 1
	})
	turn := int32(0)
	r.await("each Kafka partition is tried again", func(snap sinks.Snapshot) bool {
		if snap.Counts.Pending == 0 {
			r.put(turn%partitions, "feed")
			turn++
		}
		return turn > 2*partitions && snap.State == sinks.StateReady
	})
	r.settled()
	r.allDelivered("after")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
}
