package catchup

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"twinegress/internal/event"
)

const (
	// marksAfter is how long an offset stands in a partition in which the endpoint isn't
	// behind: with thousands of endpoints, all groups would be written in every round
	// while live traffic goes on.
	marksAfter = time.Minute
	// recommitAfter is how old an offset may be: the brokers delete those of groups
	// without members after offsets.retention.minutes, each for itself.
	recommitAfter = time.Hour
	// lookInterval is how often the brokers are asked which groups there are, whether an
	// endpoint is behind at other copies, and whether they take what they refused.
	lookInterval = time.Minute
	// roundTimeout is how long a round begins requests; the next one does the rest.
	roundTimeout = time.Second
)

// groups are what Kafka's tools see of who is behind: a group without members for each
// endpoint that is, `<ingest.group>.<id>`, with the endpoint's position in each
// partition in which it is behind, and the mark in the others: tools take a partition
// without an offset for one that nothing of was read. Nobody reads positions from them.
//
// Each copy commits for its own partitions, and knows from the offsets' metadata
// whether the endpoint is behind in another one's. The last one deletes the group. What
// two copies do at the same time can be wrong for a minute: then both look again.
type groups struct {
	keeper *Keeper
	prefix string        // of the groups' names
	begin  time.Duration // roundTimeout
	// The metadata of our offsets. Without it an offset is somebody else's, and its group
	// is left alone: also the ingest group of a fleet that has ours as a prefix.
	behind, live string

	// Of the goroutine that runs rounds.
	owned  []*event.Ownership
	listed []uint64 // of each, when it was read last
	views  map[string]*view
	// orphans are groups without an endpoint that the last look has found; true: they are
	// somebody else's.
	orphans  map[string]bool
	marks    []int64 // of owned; -1: none is known
	marksAt  time.Time
	nextLook time.Time
	ids      map[string]kadm.TopicID
	idsAt    time.Time

	mu       sync.Mutex
	refused  pause // commits, for want of a right
	deleting pause // deletions
	taken    map[string]string
}

// pause is what the brokers refuse.
type pause struct {
	until time.Time
	why   string // "": nothing is refused
}

// view is the group of one endpoint. The fields are in the order in which they are
// found out.
type view struct {
	id     string
	places []place // by partition that this copy owns
	behind bool    // in one of them
	// checked: the group is not there, or has only offsets of ours.
	checked   bool
	elsewhere bool // it is behind in another copy's partitions
	askedAt   time.Time
	waits     time.Time // until then the group is somebody else's
}

// place is what is committed in a partition, and what is to be.
type place struct {
	cursor     int64 // -1: it isn't behind there
	sent       int64
	sentBehind bool
	sentAt     time.Time
}

func newGroups(k *Keeper) *groups {
	h := fnv.New64a()
	_, _ = h.Write([]byte(k.options.Group))
	const version = "twinegress-view/1"
	return &groups{
		keeper: k, prefix: k.options.Group + ".", begin: roundTimeout,
		behind: fmt.Sprintf("%s behind %016x", version, h.Sum64()), live: fmt.Sprintf("%s live %016x", version, h.Sum64()),
		views: make(map[string]*view), orphans: make(map[string]bool), taken: make(map[string]string), ids: make(map[string]kadm.TopicID),
	}
}

// run keeps the groups up to date until ctx ends.
func (g *groups) run(ctx context.Context) {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			g.round(ctx, now)
		}
	}
}

// round commits what has moved, and deletes groups of endpoints that are not behind any
// more. Without either it asks for nothing.
func (g *groups) round(ctx context.Context, now time.Time) {
	g.observe()
	if len(g.owned) == 0 {
		return
	}
	begin, cancel := context.WithTimeout(ctx, g.begin)
	defer cancel()
	if !now.Before(g.nextLook) && g.mayHaveGroups() {
		g.look(ctx, now)
	}
	if len(g.views) == 0 || g.waiting(&g.refused, now) {
		return
	}
	g.inspect(begin, ctx, now)
	if g.waiting(&g.refused, now) {
		for _, v := range g.views {
			if !v.behind { // there is nothing to show, nor a right to delete it
				g.forget(v)
			}
		}
		return
	}
	g.deleteUnused(begin, ctx, now)
	g.refreshMarks(ctx, now)
	g.commit(begin, ctx, now)
}

// observe reads who is behind, if that has changed.
func (g *groups) observe() {
	owned := g.keeper.readable()
	all := g.keeper.options.Behind
	if !slices.Equal(owned, g.owned) {
		g.own(owned)
	} else if !g.changed() {
		return
	}
	for _, v := range g.views {
		for i := range v.places {
			v.places[i].cursor = -1
		}
	}
	for i, o := range g.owned {
		g.listed[i] = o.Listed.Load() // before: what changes meanwhile is read again
		for _, s := range all.Of(o) {
			at, is := s.Position(o)
			if id := s.Endpoint().ID; is && g.keeper.options.Sender(id) == s {
				g.view(id).places[i].cursor = at.Cursor
			}
		}
	}
	for _, v := range g.views {
		was := v.behind
		v.behind = slices.ContainsFunc(v.places, func(p place) bool { return p.cursor >= 0 })
		if was && !v.behind {
			v.askedAt = time.Time{} // whether it still is elsewhere
		}
	}
}

// changed reports whether a list has changed since it was read.
func (g *groups) changed() bool {
	for i, o := range g.owned {
		if o.Listed.Load() != g.listed[i] {
			return true
		}
	}
	return false
}

// own takes the partitions that this copy has now.
func (g *groups) own(owned []*event.Ownership) {
	before := make(map[*event.Ownership]int, len(g.owned))
	for i, o := range g.owned {
		before[o] = i
	}
	for _, v := range g.views {
		places := make([]place, len(owned))
		for i, o := range owned {
			if was, is := before[o]; is {
				places[i] = v.places[was]
			}
		}
		v.places = places
	}
	g.owned, g.listed = owned, make([]uint64, len(owned))
	g.marks, g.marksAt = slices.Repeat([]int64{-1}, len(owned)), time.Time{}
	if len(owned) == 0 { // it is for others to show
		for _, v := range g.views {
			g.forget(v)
		}
	}
}

// view returns the view of an endpoint, a new one if there is none.
func (g *groups) view(id string) *view {
	v := g.views[id]
	if v == nil {
		v = &view{id: id, places: make([]place, len(g.owned))}
		for i := range v.places {
			v.places[i].cursor = -1
		}
		g.views[id] = v
	}
	return v
}

func (g *groups) forget(v *view) {
	delete(g.views, v.id)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.taken, v.id)
}

// leave forgets a group that is somebody else's, unless the endpoint is behind here.
func (g *groups) leave(v *view) {
	if v.behind {
		return
	}
	g.forget(v)
	if g.keeper.options.Sender(v.id) == nil {
		g.orphans[v.id] = true
	}
}

// mayHaveGroups reports whether there may be groups of this fleet: while an endpoint may
// be behind anywhere, and once at the start.
func (g *groups) mayHaveGroups() bool {
	k := g.keeper
	k.mu.Lock()
	known, open := k.orders.known, g.nextLook.IsZero()
	k.mu.Unlock()
	for _, foreign := range g.orphans {
		open = open || !foreign
	}
	return known && (open || len(g.views) > 0 || k.mayBeBehind())
}

// found takes the groups that there are: names, without their prefix.
func (g *groups) found(ids map[string]bool) {
	orphans := make(map[string]bool)
	for id := range ids {
		foreign, seen := g.orphans[id]
		switch known := g.keeper.options.Sender(id) != nil; {
		case !known && (!seen || foreign): // it may be new, and this copy not know it yet
			orphans[id] = foreign
		default:
			g.view(id)
		}
	}
	g.orphans = orphans
	for id, v := range g.views {
		if ids[id] {
			continue
		}
		for i := range v.places { // somebody has deleted it
			v.places[i].sentAt = time.Time{}
		}
	}
}

// unused reports whether an endpoint's group is to be deleted.
func (g *groups) unused(v *view) bool {
	return v.checked && (g.keeper.options.Sender(v.id) == nil || !v.behind && !v.elsewhere && !v.askedAt.IsZero())
}

// due returns the offsets that are to be committed.
func (g *groups) due(v *view, now time.Time) (due []int) {
	if !v.checked || now.Before(v.waits) || g.keeper.options.Sender(v.id) == nil {
		return nil
	}
	if !v.behind && !v.askedAt.Equal(now) {
		return nil // another copy may have deleted it: a commit would make it anew
	}
	for i := range v.places {
		p, to := &v.places[i], g.offset(v, i)
		if to >= 0 && (to != p.sent || p.sentBehind != (p.cursor >= 0) || p.sentAt.IsZero() || now.Sub(p.sentAt) >= recommitAfter) {
			due = append(due, i)
		}
	}
	return due
}

// offset returns what is to be committed in a partition; -1: nothing.
func (g *groups) offset(v *view, i int) int64 {
	if at := v.places[i].cursor; at >= 0 {
		return at
	}
	return g.marks[i]
}

// each calls do for views, eight at a time, and returns once begin ends. do may use its
// own view only.
func each[T any](begin context.Context, all []T, do func(T)) {
	const concurrent = 8
	next := make(chan T)
	var workers sync.WaitGroup
	for range min(concurrent, len(all)) {
		workers.Go(func() {
			for one := range next {
				do(one)
			}
		})
	}
	defer workers.Wait()
	defer close(next)
	for _, one := range all {
		select {
		case next <- one:
		case <-begin.Done():
			return
		}
	}
}

// readable returns the ownerships whose positions are known, in the order of their
// partitions.
func (k *Keeper) readable() []*event.Ownership {
	var owned []*event.Ownership
	for _, p := range k.all() {
		p.mu.Lock()
		if p.restored && !p.revoked {
			owned = append(owned, p.owned)
		}
		p.mu.Unlock()
	}
	slices.SortFunc(owned, func(a, b *event.Ownership) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return owned
}
