package endpoints_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) endpoints.Store {
		s, err := endpoints.NewMemoryStore(nil, endpoints.Options{})
		storetest.Must(t, err)
		_, err = s.Load(t.Context())
		storetest.Must(t, err)
		return s
	})
}

func TestMemoryStoreSet(t *testing.T) {
	if _, err := endpoints.NewMemoryStore([]endpoints.Endpoint{{}}, endpoints.Options{}); err == nil {
		t.Error("an invalid set is taken")
	}
	synctest.Test(t, func(t *testing.T) {
		m, err := endpoints.NewMemoryStore([]endpoints.Endpoint{storetest.Hub("hub")}, endpoints.Options{})
		storetest.Must(t, err)
		first, err := m.Load(t.Context())
		if err != nil || storetest.Names(first) != "hub" || first[0].ID == "" || first[0].LastUpdated.IsZero() {
			t.Fatalf("loaded %v, %v", first, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		var got []endpoints.Endpoint
		applied := 0
		go func() {
			done <- m.Watch(ctx, func(eps []endpoints.Endpoint) { got = eps; applied++ })
		}()
		synctest.Wait()
		if applied != 0 {
			t.Error("what Load returned is delivered again")
		}
		time.Sleep(time.Second) // of the bubble
		storetest.Must(t, m.Set([]endpoints.Endpoint{storetest.Hub("hub"), storetest.Grid("")}))
		synctest.Wait()
		if applied != 1 || len(got) != 2 || !got[0].LastUpdated.Equal(first[0].LastUpdated) ||
			!got[1].LastUpdated.After(first[0].LastUpdated) {
			t.Errorf("applied %d: %v", applied, got)
		}
		if err := m.Set([]endpoints.Endpoint{{}}); err == nil {
			t.Error("an invalid set is taken")
		}
		synctest.Wait()
		if applied != 1 {
			t.Error("an invalid set is delivered")
		}
		cancel()
		storetest.Must(t, <-done)
		// A change while nobody watches is what the next Watch begins with.
		_, err = m.Change(t.Context(), storetest.Add(storetest.Hub("later")))
		storetest.Must(t, err)
		again, stop := context.WithCancel(t.Context())
		storetest.Must(t, m.Watch(again, func(set []endpoints.Endpoint) { got = set; stop() }))
		if storetest.Names(got) != "hub  later" {
			t.Errorf("the next Watch begins with %v", got)
		}
	})
}
