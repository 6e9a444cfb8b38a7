package endpoints_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) endpoints.Store {
		s, err := endpoints.NewMemoryStore(nil, endpoints.Options{})
		storetest.Must(t, err)
		_, err = s.Load(t.Context())
		storetest.Must(t, err)
		return s
	})
}

// Watch doesn't deliver what Load returned, and begins with a change from before it.
func TestMemoryStoreBeforeWatch(t *testing.T) {
	if _, err := endpoints.NewMemoryStore([]endpoints.Endpoint{{}}, endpoints.Options{}); err == nil {
		t.Error("an invalid set is taken")
	}
	synctest.Test(t, func(t *testing.T) {
		m, err := endpoints.NewMemoryStore([]endpoints.Endpoint{storetest.Hub("hub")}, endpoints.Options{})
		storetest.Must(t, err)
		loaded, err := m.Load(t.Context())
		if err != nil || storetest.Names(loaded) != "hub" || loaded[0].ID == "" || loaded[0].LastUpdated.IsZero() {
			t.Fatalf("loaded %v, %v", loaded, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() { _ = m.Watch(ctx, func(set []endpoints.Endpoint) { t.Errorf("delivered again: %v", set) }) })
		synctest.Wait()
		cancel()
		ended.Wait()
		_, err = m.Change(t.Context(), storetest.Add(storetest.Hub("later")))
		storetest.Must(t, err)
		ctx, cancel = context.WithCancel(t.Context())
		storetest.Must(t, m.Watch(ctx, func(set []endpoints.Endpoint) {
			if storetest.Names(set) != "hub later" {
				t.Errorf("Watch begins with %v", set)
			}
			cancel()
		}))
	})
}
