package endpoints

import (
	"context"
	"fmt"
	"path/filepath"
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

func BenchmarkFileStore(b *testing.B) {
	for name, k := range map[string]*Keyring{"in the clear": nil, "encrypted": keyring(b, ageKeys(b, 1)...)} {
		path := filepath.Join(b.TempDir(), "endpoints.json")
		write(b, path, "[]")
		s := NewFileStore(path, FileOptions{Keyring: k})
		if _, err := s.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Change(b.Context(), func([]Endpoint) ([]Endpoint, error) { return manyEndpoints(), nil }); err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/Load", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NewFileStore(path, FileOptions{Keyring: k}).Load(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/Change", func(b *testing.B) { changeOne(b, s) })
		// What a change by another process costs this one.
		b.Run(name+"/Watch", func(b *testing.B) {
			follower := NewFileStore(path, FileOptions{Keyring: k, Debounce: 1})
			if _, err := follower.Load(b.Context()); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			sets, done := make(chan []Endpoint), make(chan error, 1)
			go func() { done <- follower.Watch(ctx, func(set []Endpoint) { sets <- set }) }()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				name := fmt.Sprintf("change %d", i)
				if _, err := s.Change(b.Context(), func(set []Endpoint) ([]Endpoint, error) {
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
