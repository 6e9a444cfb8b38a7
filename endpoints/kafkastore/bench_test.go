package kafkastore

import (
	"fmt"
	"testing"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// many is how many endpoints an instance is made for.
const many = 10_000

func BenchmarkStore(b *testing.B) {
	c := anyCluster(b)
	s := c.start(b, c.keys)
	for have := 0; have < many; have = len(s.Current()) { // not all in one transaction: the brokers' time for it is bounded
		_, err := s.change(b, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			for i := range 1000 {
				set = append(set, storetest.Hub(fmt.Sprintf("endpoint %d", have+i)))
			}
			return set, nil
		})
		storetest.Must(b, err)
	}
	b.Run("Load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o, _ := c.options(c.keys)
			set, err := New(o).Load(b.Context())
			if err != nil || len(set) != many {
				b.Fatalf("%d, %v", len(set), err)
			}
		}
	})
	b.Run("Change", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, err := s.change(b, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
				set[i%many].Path = fmt.Sprintf("hub-%d", i)
				return set, nil
			})
			storetest.Must(b, err)
		}
	})
}
