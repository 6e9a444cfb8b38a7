package sinktest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// How bytes are put in place of a frame.
const (
	asTheyAre = iota
	asFrame   // with a header that fits them
	asPatch   // each two of them change the frame: where, and to what
	behind    // as a frame, behind the one that is due
	numForms
)

// FuzzPeer puts any bytes in place of one of the service's frames, and expects
// Send to return in time, memory to stay bounded, and nothing to be left running.
func FuzzPeer(f *testing.F, s Service) {
	stages := []byte{atHeader, atMechanisms, atOutcome, atOpen, atBegin, atAttach, atFlow, atTransfer, atDisposition}
	for i := range stages {
		f.Add(byte(i), false, byte(asPatch), []byte{0xff, 0xff})
		f.Add(byte(i), true, byte(behind), performative(detachCode, uintOf(0), yes)[8:])
	}
	f.Add(byte(3), false, byte(asFrame), performative(atOpen, str("x"))[8:])
	f.Add(byte(7), false, byte(asFrame), performativeWith(described(0x77, null), atTransfer, uintOf(1), uintOf(0), []byte{0xa0, 1, 1}, uintOf(0), yes, no)[8:])
	f.Add(byte(8), true, byte(asFrame), disposition(uintOf(0), uintOf(9), described(0x26, list()))[8:])
	f.Add(byte(4), false, byte(asTheyAre), []byte("\x7f\xff\xff\xff\x02\x00\x00\x00"))
	service := s.start(f, emulator.KeyPair{}, nil)
	f.Fuzz(func(t *testing.T, stage byte, batch bool, form byte, data []byte) {
		known := goleak.IgnoreCurrent()
		growth := watchMemory()
		c := hostileCase{at: stages[int(stage)%len(stages)], batch: batch, send: func(p *peer, due []byte) bool {
			_, _ = p.Write(formed(form%numForms, due, data))
			_ = p.Close()
			return false
		}}
		endpoint, stop := c.relayed(t, s, service, new(atomic.Int64))
		sink, err := s.Opener(nil, nil)(endpoint, sinks.Primary)
		if err != nil {
			t.Fatal(err)
		}
		returned := make(chan struct{})
		go func() {
			defer close(returned)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			chunk := newChunk(1, 0, []string{"event"}, func(*event.Chunk) {})
			_, _ = sink.Send(ctx, []*event.Event{&chunk.Events[0]})
			_ = sink.Close(ctx)
		}()
		select {
		case <-returned:
		case <-time.After(waitTimeout):
			t.Fatal("Send and Close don't return")
		}
		stop()
		if grown := growth(); grown > 32<<20 {
			t.Errorf("the process grew by %d MiB", grown>>20)
		}
		if err := goleak.Find(known); err != nil {
			t.Error(err)
		}
	})
}

// formed returns what comes in place of a frame.
func formed(form byte, due, data []byte) []byte {
	frame := onChannelOf(due, frameOf(due[5], data))
	switch form {
	case asTheyAre:
		return data
	case asPatch:
		for i := 0; i+1 < len(data); i += 2 {
			due[int(data[i])%len(due)] = data[i+1]
		}
		return due
	case behind:
		return append(due, frame...)
	}
	return frame
}
