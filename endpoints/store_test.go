package endpoints

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// stores are those that need nothing but this machine, each empty and loaded.
func stores(t *testing.T, f func(t *testing.T, s Store)) {
	t.Run("memory", func(t *testing.T) {
		s, err := NewMemoryStore(nil, Options{})
		must(t, err)
		_, err = s.Load(t.Context())
		must(t, err)
		f(t, s)
	})
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "endpoints.json")
		write(t, path, "[]")
		s := NewFileStore(path, FileOptions{Recheck: time.Hour})
		_, err := s.Load(t.Context())
		must(t, err)
		f(t, s)
	})
}

func add(e Endpoint) func([]Endpoint) ([]Endpoint, error) {
	return func(set []Endpoint) ([]Endpoint, error) { return append(set, e), nil }
}

func TestChange(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		ctx := t.Context()
		set, err := s.Change(ctx, add(hub(func(e *Endpoint) {
			e.Type, e.LastUpdated = "eventhub", time.Unix(0, 0)
		})))
		must(t, err)
		first := set[0]
		if _, err := uuid.Parse(first.ID); err != nil || first.Type != TypeEventHub || first.Overflow != OverflowBlock ||
			time.Since(first.LastUpdated) > time.Minute {
			t.Fatalf("added %s at %s, %v", first, first.LastUpdated, err)
		}
		if cur := s.Current(); len(cur) != 1 || !cur[0].Equal(first) {
			t.Fatalf("current is %v after the change", cur)
		}

		// The same again is another one: only names and ids are unique.
		set, err = s.Change(ctx, add(hub()))
		must(t, err)
		if len(set) != 2 || set[0].ID != first.ID || set[1].ID == first.ID || !set[0].LastUpdated.Equal(first.LastUpdated) {
			t.Fatalf("added another one: %v", set)
		}

		// edit's own set: what it scribbles and then gives up is nowhere.
		stop := errors.New("no")
		if _, err := s.Change(ctx, func(set []Endpoint) ([]Endpoint, error) {
			set[0].EventTypes[0] = "scribble"
			return set, stop
		}); err != stop { //nolint:errorlint // it must come back as it is
			t.Errorf("edit's error became %v", err)
		}
		if s.Current()[0].EventTypes[0] != SensorChange {
			t.Error("a refused edit shows")
		}

		before := s.Current()[1].LastUpdated
		set, err = s.Change(ctx, func(set []Endpoint) ([]Endpoint, error) {
			set[0].Path, set[1].LastUpdated = "other", time.Unix(1, 0)
			return set, nil
		})
		must(t, err)
		if set[0].Path != "other" || set[0].ID != first.ID || !set[0].LastUpdated.After(first.LastUpdated) ||
			!set[1].LastUpdated.Equal(before) {
			t.Errorf("changed: %v at %s and %s", set, set[0].LastUpdated, set[1].LastUpdated)
		}

		set, err = s.Change(ctx, func(set []Endpoint) ([]Endpoint, error) { return set[1:], nil })
		if err != nil || len(set) != 1 || len(s.Current()) != 1 {
			t.Errorf("deleted: %v, %v", set, err)
		}
	})
}

func TestChangeRefuses(t *testing.T) {
	device := hub(named("d"), func(e *Endpoint) {
		e.EventTypes = []string{DeviceMessage}
		e.ConnectionString, e.SecondaryConnectionString = ehConn+";EntityPath=hub", ""
	})
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	device.ID = id
	stores(t, func(t *testing.T, s Store) {
		_, err := s.Change(t.Context(), add(device))
		must(t, err)
		for name, tc := range map[string]struct {
			e        Endpoint
			conflict bool
			want     string
		}{
			"a second device": {
				hub(func(e *Endpoint) {
					e.ID, e.EventTypes, e.ConnectionString, e.SecondaryConnectionString = uuid.NewString(), device.EventTypes, device.ConnectionString, ""
				}),
				true, "eventTypes: only one endpoint may take DeviceMessage, and endpoint d (" + id + ") does",
			},
			"the name":     {hub(named("d")), true, "name: is already that of endpoint d (" + id + ")"},
			"the id":       {hub(func(e *Endpoint) { e.ID = strings.ToUpper(id) }), true, "id: is already that of endpoint d (" + id + ")"},
			"not valid":    {hub(func(e *Endpoint) { e.Path = "" }), false, "path: is required: the name of the event hub"},
			"both at once": {hub(named("d"), func(e *Endpoint) { e.Path = "" }), false, "name: is already that"},
		} {
			_, err := s.Change(t.Context(), add(tc.e))
			var v ValidationErrors
			if !errors.As(err, &v) || v.Conflict() != tc.conflict || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want a conflict %t: %s", name, err, tc.conflict, tc.want)
			}
		}
		if len(s.Current()) != 1 {
			t.Errorf("a refused change shows: %v", s.Current())
		}
	})
}

// Of two that are in conflict the one that was changed is at fault, wherever it
// stands: it is told of the other, not of itself.
func TestConflictNamesTheOther(t *testing.T) {
	device := func(path string) Endpoint {
		return hub(named(path), func(e *Endpoint) {
			e.EventTypes, e.Path, e.SecondaryConnectionString = []string{DeviceMessage}, path, ""
			e.ConnectionString = ehConn + ";EntityPath=" + path
		})
	}
	for name, tt := range map[string]struct {
		edit func(set []Endpoint)
		want string
	}{
		"the name": {func(set []Endpoint) { set[0].Name = "b" }, "endpoint b (%[1]s): name: is already that of endpoint b (%[2]s)"},
		"DeviceMessage": {
			func(set []Endpoint) { id := set[0].ID; set[0] = device("a"); set[0].ID = id },
			"endpoint a (%[1]s): eventTypes: only one endpoint may take DeviceMessage, and endpoint b (%[2]s) does",
		},
	} {
		t.Run(name, func(t *testing.T) {
			stores(t, func(t *testing.T, s Store) {
				_, err := s.Change(t.Context(), add(hub(named("a"))))
				must(t, err)
				set, err := s.Change(t.Context(), add(device("b")))
				must(t, err)
				_, err = s.Change(t.Context(), func(set []Endpoint) ([]Endpoint, error) { tt.edit(set); return set, nil })
				if want := fmt.Sprintf(tt.want, set[0].ID, set[1].ID); err == nil || err.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
			})
		})
	}
}

func TestChangeIsWatched(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		_, err := s.Change(t.Context(), add(hub(named("0"))))
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		sets, done := make(chan []Endpoint), make(chan error, 1)
		go func() {
			done <- s.Watch(ctx, func(set []Endpoint) {
				select {
				case sets <- set:
				case <-ctx.Done():
				}
			})
		}()
		names := func() string {
			var all []string
			for _, e := range <-sets {
				all = append(all, e.Name)
			}
			return strings.Join(all, " ")
		}
		if got := names(); got != "0" {
			t.Errorf("what came before Watch is delivered as %q", got)
		}
		for i, want := range []string{"0 1", "0 1 2"} {
			_, err := s.Change(t.Context(), add(hub(named(fmt.Sprint(i+1)))))
			must(t, err)
			if got := names(); got != want {
				t.Errorf("delivered %q, want %q", got, want)
			}
		}
		cancel()
		must(t, <-done)
	})
}

// Of many writers at once every one is in the end, and one DeviceMessage only.
func TestChangeByManyAtOnce(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		const n = 20
		var (
			wg      sync.WaitGroup
			mu      sync.Mutex
			devices int
		)
		for i := range n {
			wg.Go(func() {
				if _, err := s.Change(t.Context(), add(hub(named(fmt.Sprint(i))))); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				_, err := s.Change(t.Context(), add(hub(func(e *Endpoint) {
					e.EventTypes = []string{DeviceMessage}
					e.ConnectionString, e.SecondaryConnectionString = ehConn+";EntityPath=hub", ""
				})))
				var v ValidationErrors
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					devices++
				} else if !errors.As(err, &v) || !v.Conflict() {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if devices != 1 || len(s.Current()) != n+1 {
			t.Errorf("%d DeviceMessage endpoints accepted, %d endpoints in all", devices, len(s.Current()))
		}
	})
}

func TestChangeStopsWaitingForItsTurn(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		inside, leave, done := make(chan bool), make(chan bool), make(chan error, 1)
		go func() {
			_, err := s.Change(t.Context(), func(set []Endpoint) ([]Endpoint, error) {
				inside <- true
				<-leave
				return set, nil
			})
			done <- err
		}()
		<-inside
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Change(ctx, add(hub())); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled change: %v", err)
		}
		close(leave)
		must(t, <-done)
	})
}

func TestIDsThatWereWrittenDown(t *testing.T) {
	first, err := Prepare([]Endpoint{hub(), hub(named("old"))}, Options{})
	must(t, err)
	first[1].Name = "new"
	// Two more by hand: of the same place, and of the name that is free again.
	all, err := Prepare(append(slices.Clone(first), hub(), hub(named("old"))), Options{})
	must(t, err)
	if len(byID(all)) != 4 || all[0].ID != first[0].ID || all[1].ID != first[1].ID {
		t.Errorf("ids %v", all)
	}
}
