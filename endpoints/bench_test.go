package endpoints_test

import (
	"testing"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// With as many endpoints as an instance is made for, each of these must stay well
// under a second.
func BenchmarkPrepare(b *testing.B) {
	set := storetest.Hubs(0, storetest.Many)
	b.ReportAllocs()
	for b.Loop() {
		_, err := endpoints.Prepare(set, endpoints.Options{})
		storetest.Must(b, err)
	}
}

func BenchmarkMemoryStore(b *testing.B) {
	s, err := endpoints.NewMemoryStore(storetest.Hubs(0, storetest.Many), endpoints.Options{})
	storetest.Must(b, err)
	b.Run("Change", func(b *testing.B) { storetest.BenchmarkChange(b, s) })
}
