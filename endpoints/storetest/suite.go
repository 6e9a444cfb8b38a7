package storetest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"twinegress/endpoints"
)

// Run tests what endpoints.Store promises of Change, Current and Watch. open
// returns a store that is empty and loaded; each test has one of its own.
func Run(t *testing.T, open func(t *testing.T) endpoints.Store) {
	for name, test := range map[string]func(*testing.T, *env){
		"change":             testChange,
		"refuse":             testRefuse,
		"deliver":            testDeliver,
		"many at once":       testManyAtOnce,
		"a cancelled change": testCancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, watch(t, open(t))) })
	}
}

// env is a store, watched.
type env struct {
	endpoints.Store
	sets chan []endpoints.Endpoint // each delivered set, until the test ends
}

func watch(t *testing.T, s endpoints.Store) *env {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e, done := &env{s, make(chan []endpoints.Endpoint, 1000)}, make(chan error, 1)
	go func() { done <- s.Watch(ctx, func(set []endpoints.Endpoint) { e.sets <- set }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch ends with %v", err)
		}
	})
	return e
}

func testChange(t *testing.T, s *env) {
	ctx := t.Context()
	set, err := s.Change(ctx, Add(Hub("", func(e *endpoints.Endpoint) {
		e.Type, e.LastUpdated = "eventhub", time.Unix(0, 0)
	})))
	Must(t, err)
	first := set[0]
	if _, err := uuid.Parse(first.ID); err != nil || first.Type != endpoints.TypeEventHub || first.Overflow != endpoints.OverflowBlock ||
		time.Since(first.LastUpdated) > time.Minute {
		t.Fatalf("added %s at %s, %v", first, first.LastUpdated, err)
	}
	if cur := s.Current(); len(cur) != 1 || !cur[0].Equal(first) || cur[0].ConnectionString != Conn1 {
		t.Fatalf("current is %v after the change", cur)
	}

	// The same again is another one: only names and ids are unique.
	set, err = s.Change(ctx, Add(Hub("")))
	Must(t, err)
	if len(set) != 2 || set[0].ID != first.ID || set[1].ID == first.ID || !set[0].LastUpdated.Equal(first.LastUpdated) {
		t.Fatalf("added another one: %v", set)
	}

	// edit gets a copy: what it writes there and doesn't return has no effect.
	stop := errors.New("no")
	if _, err := s.Change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		set[0].EventTypes[0] = "scribble"
		return set, stop
	}); err != stop { //nolint:errorlint // it must come back as it is
		t.Errorf("edit's error became %v", err)
	}
	if s.Current()[0].EventTypes[0] != endpoints.SensorChange {
		t.Error("a refused edit shows")
	}

	before := s.Current()[1].LastUpdated
	set, err = s.Change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		set[0].Path, set[1].LastUpdated = "other", time.Unix(1, 0)
		return set, nil
	})
	Must(t, err)
	if set[0].Path != "other" || set[0].ID != first.ID || !set[0].LastUpdated.After(first.LastUpdated) ||
		!set[1].LastUpdated.Equal(before) {
		t.Errorf("changed: %v at %s and %s", set, set[0].LastUpdated, set[1].LastUpdated)
	}

	set, err = s.Change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) { return set[1:], nil })
	if err != nil || len(set) != 1 || len(s.Current()) != 1 {
		t.Errorf("deleted: %v, %v", set, err)
	}
}

// What all is refused is for the tests of package endpoints.
func testRefuse(t *testing.T, s *env) {
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	_, err := s.Change(t.Context(), Add(Device("d", func(e *endpoints.Endpoint) { e.ID = id })))
	Must(t, err)
	for name, tc := range map[string]struct {
		e        endpoints.Endpoint
		conflict bool
		want     string
	}{
		"a second device": {Device(""), true, "eventTypes: only one endpoint may take DeviceMessage, and endpoint d (" + id + ") does"},
		"the id":          {Hub("", func(e *endpoints.Endpoint) { e.ID = strings.ToUpper(id) }), true, "id: is already that of endpoint d (" + id + ")"},
		"both at once":    {Hub("d", func(e *endpoints.Endpoint) { e.Path = "" }), false, "name: is already that"},
	} {
		_, err := s.Change(t.Context(), Add(tc.e))
		if v, ok := errors.AsType[endpoints.ValidationErrors](err); !ok || v.Conflict() != tc.conflict || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want a conflict %t: %s", name, err, tc.conflict, tc.want)
		}
	}
	if len(s.Current()) != 1 {
		t.Errorf("a refused change shows: %v", s.Current())
	}
}

func testDeliver(t *testing.T, s *env) {
	for i, want := range []string{"0", "0 1", "0 1 2"} {
		_, err := s.Change(t.Context(), Add(Hub(strconv.Itoa(i))))
		Must(t, err)
		if got := Names(<-s.sets); got != want {
			t.Errorf("delivered %q, want %q", got, want)
		}
	}
}

// Of many writers at once every one is in the end, and one DeviceMessage only.
func testManyAtOnce(t *testing.T, s *env) {
	const n = 20
	var wg sync.WaitGroup
	var devices atomic.Int32
	for i := range n {
		wg.Go(func() {
			if _, err := s.Change(t.Context(), Add(Hub(strconv.Itoa(i)))); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, err := s.Change(t.Context(), Add(Device("")))
			if v, ok := errors.AsType[endpoints.ValidationErrors](err); err == nil {
				devices.Add(1)
			} else if !ok || !v.Conflict() {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if devices.Load() != 1 || len(s.Current()) != n+1 {
		t.Errorf("%d DeviceMessage endpoints accepted, %d endpoints in all", devices.Load(), len(s.Current()))
	}
}

// A change that waits for another one ends with its context.
func testCancelled(t *testing.T, s *env) {
	inside, leave, done := make(chan bool), make(chan bool), make(chan error, 1)
	go func() {
		_, err := s.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			inside <- true
			<-leave
			return set, nil
		})
		done <- err
	}()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Change(ctx, Add(Hub(""))); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled change: %v", err)
	}
	close(leave)
	Must(t, <-done)
}
