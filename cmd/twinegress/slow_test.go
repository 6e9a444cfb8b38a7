package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/pipeline"
)

// An endpoint that is slow, but answers, and that takes a tenth of the events:
// its lanes would never fill before as much is in flight as may be, since each
// of its events keeps a whole chunk. It is named all the same; or, where that is
// what its operator wants, loses its own events, and nobody else waits.
func TestSlowEndpointOfFewEvents(t *testing.T) {
	for _, overflow := range []endpoints.Overflow{endpoints.OverflowBlock, endpoints.OverflowDrop} {
		t.Run(string(overflow), func(t *testing.T) {
			const partitions, total = 8, 40_000
			w := newWorld(t, partitions)
			// Slower than the test: nothing that it asks depends on when it answers.
			if err := w.services.SetFault("hub", emulator.Fault{Delay: emulator.Duration(25 * time.Second)}); err != nil {
				t.Fatal(err)
			}
			cfg := w.config()
			cfg.Ingest.MaxInFlightBytes = 4 << 20
			cfg.Shutdown.Timeout = time.Second
			slow, fast := w.hub("UdfCustom"), w.topic("SensorChange")
			slow.Overflow = overflow
			r := w.start(cfg, slow, fast)
			var records []*kgo.Record
			filler := strings.Repeat("x", 500)
			for i := range total {
				kind := "SensorChange"
				if i/partitions%10 == 0 {
					kind = "UdfCustom"
				}
				value := fmt.Sprintf(`{"id":"%d","eventType":%q,"data":%q}`, i, kind, filler)
				records = append(records, &kgo.Record{Value: []byte(value), Partition: int32(i % partitions)})
			}
			w.produce(records...)

			status := func() (slow, fast pipeline.EndpointStatus) {
				st := r.Pipeline.Status()
				equation(t, st)
				for _, e := range st.Endpoints {
					if e.Path == "hub" {
						slow = e
					} else {
						fast = e
					}
				}
				return slow, fast
			}
			if overflow == endpoints.OverflowBlock {
				eventually(t, "the slow endpoint is named", func() bool {
					slow, fast := status()
					return slow.HoldsBack && !fast.HoldsBack && fast.Pending == 0
				})
				if slow, fast := status(); slow.Delivered > 0 || fast.Routed == total/10*9 {
					t.Errorf("nothing waits: %+v, %+v", slow, fast)
				}
				return
			}
			eventually(t, "the other endpoint has everything", func() bool {
				_, fast := status()
				return fast.Delivered == total/10*9
			})
			slow1, _ := status()
			if slow1.Delivered > 0 || slow1.Dropped["overflow"] == 0 || slow1.HoldsBack {
				t.Errorf("%+v: it was to give its events up", slow1)
			}
		})
	}
}
