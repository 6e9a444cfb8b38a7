//go:build integration

package e2e

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var scalingEvents = flag.Int("scaling-events", 60_000, "events of each stretch of the scaling test")

// Copies 1, 2, 4 on 16 partitions: each has its share within seconds, and an
// event costs no more processor time than with one.
func TestScaling(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			const partitions = 16
			w := newWorld(t, brokers(t), partitions, nil)
			f := &fleet{w: w, partitions: partitions}
			var table strings.Builder
			var first float64
			for _, copies := range []int{1, 2, 4} {
				begun := time.Now()
				for i := len(f.copies); i < copies; i++ {
					r := w.replica("copy-"+strconv.Itoa(i), settings{"ingest.protocol": protocol})
					r.start()
					f.copies = append(f.copies, r)
				}
				for _, r := range f.copies {
					r.awaitReady()
				}
				eventually(t, "each copy has its share", func() bool { return f.areShared() && f.evenly() })
				joined := time.Since(begun)
				if joined > 15*time.Second {
					t.Errorf("%d copies had their shares after %v", copies, joined)
				}
				begun = time.Now()
				before := f.cpu()
				seen := w.services.Stats().Entity("hub").Count
				w.fill(partitions, *scalingEvents)
				eventuallyWithin(t, 3*time.Minute, "everything is delivered", func() bool {
					s := w.services.Stats()
					return s.Entity("hub").Count >= seen+int64(*scalingEvents) && s.Entity("topic").Count >= seen+int64(*scalingEvents)
				})
				took, cpu := time.Since(begun), f.cpu()-before
				perSecond := float64(*scalingEvents) / cpu.Seconds()
				if copies == 1 {
					first = perSecond
				}
				fmt.Fprintf(&table, "| %s | %d | %.1f s | %.0f | %.1f | %.0f | %.0f %% |\n",
					protocol, copies, joined.Seconds(), float64(*scalingEvents)/took.Seconds(), cpu.Seconds(), perSecond, 100*perSecond/first)
			}
			t.Logf("\n| protocol | copies | shares after | events/s | CPU s | events per CPU second | of one copy's |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n%s", table.String())
			w.allCommitted(f.copies...)
			if got := w.services.Stats().Entity("hub").Count; got != int64(3**scalingEvents) {
				t.Errorf("%d events arrived, want %d", got, 3**scalingEvents)
			}
		})
	}
}

// fill produces n events as fast as they are taken.
func (w *world) fill(partitions, n int) {
	w.t.Helper()
	w.fillWith(partitions, n, event)
}

func (w *world) fillWith(partitions, n int, event func(p int32, offset int64) []byte) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.DefaultProduceTopic(w.topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	failed := make(chan error, 1)
	for i := range n {
		client.Produce(w.t.Context(), &kgo.Record{Partition: int32(i % partitions), Value: event(int32(i%partitions), int64(i))}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := client.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	select {
	case err := <-failed:
		w.t.Fatal(err)
	default:
	}
}
