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

	"twinegress/e2e/env"
	"twinegress/internal/eventually"
)

var scalingEvents = flag.Int("scaling-events", 60_000, "events of each stretch of the scaling test")

// Copies 1, 2, 4 on 16 partitions: each has its share within seconds, and an
// event costs no more processor time than with one.
func TestScaling(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			const partitions = 16
			h := newHarness(t, env.Config{Partitions: partitions})
			h.protocol = protocol
			f := &fleet{h: h, partitions: partitions}
			var table strings.Builder
			var first float64
			for _, copies := range []int{1, 2, 4} {
				begun := time.Now()
				f.grow(copies, func(string) env.Settings { return nil })
				f.awaitShares(true)
				joined := time.Since(begun)
				if joined > 15*time.Second {
					t.Errorf("%d copies had their shares after %v", copies, joined)
				}
				begun = time.Now()
				before := f.cpu()
				seen := h.Services.Stats().Entity("hub").Count
				h.Produce(h.Events(*scalingEvents)...)
				eventually.Within(t, 3*time.Minute, "everything is delivered", func() bool {
					s := h.Services.Stats()
					return s.Entity("hub").Count >= seen+int64(*scalingEvents) && s.Entity("topic").Count >= seen+int64(*scalingEvents)
				})
				took, cpu := time.Since(begun), f.cpu()-before
				perSecond := float64(*scalingEvents) / cpu
				if copies == 1 {
					first = perSecond
				}
				fmt.Fprintf(&table, "| %s | %d | %.1f s | %.0f | %.1f | %.0f | %.0f %% |\n",
					protocol, copies, joined.Seconds(), float64(*scalingEvents)/took.Seconds(), cpu, perSecond, 100*perSecond/first)
			}
			t.Logf("\n| protocol | copies | shares after | events/s | CPU s | events per CPU second | of one copy's |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n%s", table.String())
			h.allCommitted(f.copies...)
			if got := h.Services.Stats().Entity("hub").Count; got != int64(3**scalingEvents) {
				t.Errorf("%d events arrived, want %d", got, 3**scalingEvents)
			}
		})
	}
}

// A copy that catches up with a backlog keeps within the memory of the
// container that deploy/kubernetes gives it, also where the fetches are many
// times as large once they are decompressed.
func TestBacklogInBoundedMemory(t *testing.T) {
	tests := map[string]func(p int32, offset int64) []byte{
		"readings": env.Event,
		"compressible": func(p int32, offset int64) []byte { // to an eighth or so, as JSON often is
			return append(env.Event(p, offset)[:200], strings.Repeat("0", 300)+`"}}`...)
		},
		"one over and over": func(int32, int64) []byte { return env.Event(0, 0) }, // to a hundredth
	}
	for name, event := range tests {
		t.Run(name, func(t *testing.T) {
			const partitions, n, container = 16, 400_000, 512 << 20 // 200 MB, several times what may be in flight
			h := newHarness(t, env.Config{Partitions: partitions, TopicConfig: map[string]string{"retention.ms": "600000"}})
			client := h.NewClient(kgo.ProducerLinger(5*time.Millisecond),
				kgo.ProducerBatchCompression(kgo.Lz4Compression()))
			for i := range n {
				p := int32(i % partitions)
				client.Produce(t.Context(), &kgo.Record{Partition: p, Value: event(p, int64(i))}, func(_ *kgo.Record, err error) {
					if err != nil {
						t.Error(err)
					}
				})
			}
			if err := client.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := h.replica("one", nil)
			r.environment = append(r.environment, "GOMEMLIMIT="+strconv.Itoa(container/10*9)) // as run sets it in such a container
			r.start()
			r.awaitReady()
			eventually.Within(t, 3*time.Minute, "it has caught up", func() bool { return h.Count("hub") >= n })
			h.allCommitted(r)
			peak := r.peakMemory()
			t.Logf("%d events: %d MiB resident at most", n, peak>>20)
			if peak > container {
				t.Errorf("it took %d MiB, want at most %d MiB", peak>>20, container>>20)
			}
		})
	}
}
