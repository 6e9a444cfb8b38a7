package kafkastore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/internal/eventually"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) endpoints.Store {
		c := newCluster(t)
		o, _ := c.options(c.keys)
		s := New(o)
		_, err := s.Load(t.Context())
		storetest.Must(t, err)
		return s
	})
}

func TestChangeIsSeenByEveryCopy(t *testing.T) {
	c := anyCluster(t)
	a, b := c.start(t, c.keys), c.start(t, c.keys)
	set := a.add(t, storetest.Hub("one"))
	if storetest.Names(set) != "one" || storetest.Names(a.Current()) != "one" || set[0].ID == "" {
		t.Fatalf("added: %v; current %v", set, a.Current())
	}
	eventually.Holds(t, "the other copy has it", func() bool { return storetest.Names(b.Current()) == "one" })
	one := b.Current()[0]
	if !one.Equal(set[0]) || !one.LastUpdated.Equal(set[0].LastUpdated) || one.ConnectionString != storetest.Conn1 {
		t.Errorf("there it is %s of %s, here %s of %s", one, one.LastUpdated, set[0], set[0].LastUpdated)
	}

	// The other one changes what it saw, and adds to it.
	set = b.edit(t, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		set[0].Path = "other"
		return append(set, storetest.Hub("two"), storetest.Hub("three")), nil
	})
	if storetest.Names(set) != "one two three" || !set[0].LastUpdated.After(one.LastUpdated) {
		t.Errorf("changed: %v", set)
	}
	set = a.edit(t, remove("two"))
	if storetest.Names(set) != "one three" || set[0].Path != "other" {
		t.Errorf("removed: %v", set)
	}
	eventually.Holds(t, "the other copy follows", func() bool { return storetest.Names(b.Current()) == "one three" })

	// Everything is stopped, and comes again as it was.
	a.stop(t)
	b.stop(t)
	if _, err := a.change(t, storetest.Add(storetest.Hub("x"))); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("a change after the end: %v", err)
	}
	again := c.start(t, c.keys)
	if storetest.Names(again.Current()) != "one three" || again.Current()[0].ID != one.ID {
		t.Errorf("after a restart: %v", again.Current())
	}
	for _, r := range c.all(t) {
		if strings.Contains(string(r.Value), "SECRET") || strings.Contains(string(r.Value), "SharedAccessKey") {
			t.Errorf("in the clear in the topic: %s", r.Value)
		}
	}
}

// Two copies, a hundred writers on both, and a third copy that dies in the
// middle again and again: what was acknowledged is there in the end, everywhere.
func TestManyWritersAndKills(t *testing.T) {
	c := anyCluster(t)
	a, b := c.start(t, c.keys), c.start(t, c.keys)
	const writers, enough = 50, 3 // on each copy; kills
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		expected = map[string]bool{} // names that were acknowledged
		unknown  = map[string]bool{} // names of which that isn't known
		devices  atomic.Int32
		kills    atomic.Int32
		stop     = make(chan struct{})
	)
	for i, s := range []*running{a, b} {
		for w := range writers {
			wg.Go(func() {
				name := fmt.Sprintf("%d-%d", i, w)
				for round := 0; round == 0 || kills.Load() < enough; round++ {
					name := fmt.Sprintf("%s-%d", name, round)
					if _, err := s.change(t, storetest.Add(storetest.Hub(name))); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					mu.Lock()
					expected[name] = true
					mu.Unlock()
				}
				switch _, err := s.change(t, storetest.Add(storetest.Device("device-"+name))); {
				case err == nil:
					devices.Add(1)
					mu.Lock()
					expected["device-"+name] = true
					mu.Unlock()
				case !isConflict(err):
					t.Errorf("device-%s: %v", name, err)
				}
			})
		}
	}
	var killer sync.WaitGroup
	killer.Go(func() {
		for ; ; kills.Add(1) {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(50+rand.IntN(250)) * time.Millisecond):
			}
			c.dieWriting(t, fmt.Sprintf("killed-%d", kills.Load()))
			third := c.start(t, c.keys)
			dying, name := make(chan bool), fmt.Sprintf("dying-%d", kills.Load())
			go func() {
				defer close(dying)
				_, err := third.change(t, storetest.Add(storetest.Hub(name)))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					expected[name] = true
				case errors.Is(err, endpoints.ErrUnknown):
					unknown[name] = true
				}
			}()
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			third.stop(t)
			<-dying
		}
	})
	start := time.Now()
	wg.Wait()
	close(stop)
	killer.Wait()
	t.Logf("%d writers: %d changes in %s, with %d kills", 2*writers, len(expected), time.Since(start), kills.Load())

	// One more, so that what the last one killed left open is closed.
	set := a.add(t, storetest.Hub("last"))
	expected["last"] = true
	if devices.Load() != 1 {
		t.Errorf("%d DeviceMessage endpoints were acknowledged", devices.Load())
	}
	for _, e := range set {
		if !expected[e.Name] && !unknown[e.Name] {
			t.Errorf("%s is there, and was never acknowledged", e.Name)
		}
		delete(expected, e.Name)
	}
	if len(expected) > 0 {
		t.Errorf("acknowledged, and not there: %v", expected)
	}
	eventually.Holds(t, "the other copy has the same", func() bool { return storetest.Names(b.Current()) == storetest.Names(set) })
	if again := c.start(t, c.keys); storetest.Names(again.Current()) != storetest.Names(set) {
		t.Errorf("after a restart:\n%s\nwant\n%s", storetest.Names(again.Current()), storetest.Names(set))
	}
}

// dieWriting does what a copy does that is killed after it has written, and
// before it commits: the records are in the topic, their transaction is open.
func (c *cluster) dieWriting(t *testing.T, name string) {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.TransactionalID(c.topic + "-writer"), kgo.DefaultProduceTopic(c.topic), kgo.TransactionTimeout(transactionTimeout),
	}, c.connect...)...)
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if client.BeginTransaction() != nil {
		return // fenced already
	}
	_ = client.ProduceSync(ctx, c.record(t, storetest.Hub(name))).FirstErr() // fenced by a living one, maybe
}
