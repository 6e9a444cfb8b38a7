package kafkastore

import (
	"testing"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

func BenchmarkStore(b *testing.B) {
	c := anyCluster(b)
	s := c.start(b, c.keys)
	for have := 0; have < storetest.Many; have = len(s.Current()) { // not all in one transaction: the brokers' time for it is bounded
		s.edit(b, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			return append(set, storetest.Hubs(have, 1000)...), nil
		})
	}
	b.Run("Load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o, _ := c.options(c.keys)
			set, err := New(o).Load(b.Context())
			if err != nil || len(set) != storetest.Many {
				b.Fatalf("%d, %v", len(set), err)
			}
		}
	})
	b.Run("Change", func(b *testing.B) { storetest.BenchmarkChange(b, s) })
}
