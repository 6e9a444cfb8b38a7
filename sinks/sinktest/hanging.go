package sinktest

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// RunHanging runs two lanes of a hub of which one meets a service that doesn't
// answer it. The other has less time, and sends in it.
func RunHanging(t *testing.T, s Service) {
	const long, short = 8 * time.Second, 7 * time.Second
	tests := map[string]func(code byte, frame []byte) bool{
		"the link to a partition": func(code byte, frame []byte) bool {
			return code == atAttach && bytes.Contains(frame, []byte("/Partitions/1"))
		},
		"the first question": func(code byte, frame []byte) bool {
			return code == atTransfer && bytes.Contains(frame, []byte("com.microsoft:eventhub"))
		},
	}
	for name, hangs := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := s.start(t, emulator.KeyPair{}, nil)
			met := make(chan struct{})
			var once sync.Once
			c := hostileCase{at: atNothing, keep: func(code byte, frame []byte) (keep bool) {
				if hangs(code, frame) {
					once.Do(func() {
						keep = true
						close(met)
					})
				}
				return keep
			}}
			endpoint, stop := c.relayed(t, s, service, new(atomic.Int64))
			defer stop()
			sink, err := s.Opener(nil, nil)(endpoint, sinks.Primary)
			if err != nil {
				t.Fatal(err)
			}
			send := func(timeout time.Duration, partition int32) error {
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				chunk := newChunk(partition, 0, []string{"event"}, func(*event.Chunk) {})
				_, err := sink.Send(ctx, []*event.Event{&chunk.Events[0]})
				return err
			}
			hanging := make(chan error, 1)
			go func() { hanging <- send(long, 1) }()
			select {
			case <-met:
				if err := send(short, 0); err != nil {
					t.Errorf("the other lane: %v", err)
				}
				if err := <-hanging; err == nil {
					t.Error("the lane that hangs has sent")
				}
			case err := <-hanging:
				t.Errorf("nothing hung: %v", err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
			defer cancel()
			_ = sink.Close(ctx)
		})
	}
}
