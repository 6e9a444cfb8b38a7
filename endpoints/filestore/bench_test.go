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

func BenchmarkStore(b *testing.B) {
	for name, k := range map[string]*secrets.Keyring{"in the clear": nil, "encrypted": storetest.Keyring(b, storetest.AgeKey(b))} {
		path := filepath.Join(b.TempDir(), "endpoints.json")
		write(b, path, "[]")
		s := New(path, Options{Keyring: k})
		_, err := s.Load(b.Context())
		storetest.Must(b, err)
		_, err = s.Change(b.Context(), func([]endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			return storetest.Hubs(0, storetest.Many), nil
		})
		storetest.Must(b, err)
		b.Run(name+"/Load", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := New(path, Options{Keyring: k}).Load(b.Context())
				storetest.Must(b, err)
			}
		})
		b.Run(name+"/Change", func(b *testing.B) { storetest.BenchmarkChange(b, s) })
		// What a change by another process costs this one.
		b.Run(name+"/Watch", func(b *testing.B) {
			follower := New(path, Options{Keyring: k})
			follower.debounce = 1
			_, err := follower.Load(b.Context())
			storetest.Must(b, err)
			ctx, cancel := context.WithCancel(b.Context())
			sets, done := make(chan []endpoints.Endpoint), make(chan error, 1)
			go func() { done <- follower.Watch(ctx, func(set []endpoints.Endpoint) { sets <- set }) }()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				name := fmt.Sprintf("change %d", i)
				_, err := s.Change(b.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
					set[storetest.Many-1].Name = name
					return set, nil
				})
				storetest.Must(b, err)
				b.StartTimer()
				for set := range sets {
					if set[storetest.Many-1].Name == name {
						break
					}
				}
			}
			cancel()
			storetest.Must(b, <-done)
		})
	}
}
