package endpoints

import (
	"fmt"
	"testing"
)

// many is how many endpoints an instance is made for. With so many, each of
// these must stay well under a second.
const many = 10_000

func manyEndpoints() []Endpoint {
	set := make([]Endpoint, many)
	for i := range set {
		set[i] = hub(named(fmt.Sprintf("endpoint %d", i)))
	}
	return set
}

func BenchmarkPrepare(b *testing.B) {
	set := manyEndpoints()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Prepare(set, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// changeOne is the smallest change there is.
func changeOne(b *testing.B, s Store) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, err := s.Change(b.Context(), func(set []Endpoint) ([]Endpoint, error) {
			set[i%many].Path = fmt.Sprintf("hub-%d", i)
			return set, nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemoryStore(b *testing.B) {
	s, err := NewMemoryStore(manyEndpoints(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Change", func(b *testing.B) { changeOne(b, s) })
}
