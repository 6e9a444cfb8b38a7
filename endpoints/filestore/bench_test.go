package filestore

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
	"twinegress/endpoints/storetest"
)

// many is how many endpoints an instance is made for.
const many = 10_000

func manyEndpoints() []endpoints.Endpoint {
	set := make([]endpoints.Endpoint, many)
	for i := range set {
		set[i] = storetest.Hub(fmt.Sprintf("endpoint %d", i))
	}
	return set
}

// changeOne is the smallest change there is.
func changeOne(b *testing.B, s *Store) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, err := s.Change(b.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			set[i%many].Path = fmt.Sprintf("hub-%d", i)
			return set, nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStore(b *testing.B) {
	for name, k := range map[string]*secrets.Keyring{"in the clear": nil, "encrypted": storetest.Keyring(b, storetest.AgeKey(b))} {
		path := filepath.Join(b.TempDir(), "endpoints.json")
		write(b, path, "[]")
		s := New(path, Options{Keyring: k})
		if _, err := s.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Change(b.Context(), func([]endpoints.Endpoint) ([]endpoints.Endpoint, error) { return manyEndpoints(), nil }); err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/Load", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := New(path, Options{Keyring: k}).Load(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/Change", func(b *testing.B) { changeOne(b, s) })
		// What a change by another process costs this one.
		b.Run(name+"/Watch", func(b *testing.B) {
			follower := New(path, Options{Keyring: k})
			follower.debounce = 1
			if _, err := follower.Load(b.Context()); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			sets, done := make(chan []endpoints.Endpoint), make(chan error, 1)
			go func() { done <- follower.Watch(ctx, func(set []endpoints.Endpoint) { sets <- set }) }()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				name := fmt.Sprintf("change %d", i)
				if _, err := s.Change(b.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
					set[many-1].Name = name
					return set, nil
				}); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				for set := range sets {
					if set[many-1].Name == name {
						break
					}
				}
			}
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
