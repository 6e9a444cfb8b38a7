package catchup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"twinegress/internal/untrusted"
)

// This file is what groups ask of the brokers, and what they answer.

// manyGroups is how many groups one request is about.
const manyGroups = 100

// look asks which groups there are. Those with members are not ours.
func (g *groups) look(ctx context.Context, now time.Time) {
	g.nextLook = now.Add(lookInterval)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := g.keeper.admin.ListGroups(ctx, "Empty")
	if err != nil { // a part of the brokers isn't all
		g.failed("listing groups", err)
		return
	}
	ids := make(map[string]bool)
	for name := range listed {
		if id, is := strings.CutPrefix(name, g.prefix); is && id != "" {
			ids[id] = true
		}
	}
	g.found(ids)
}

// inspect reads the groups that this copy hasn't seen yet, and those of endpoints that
// are not behind here any more.
func (g *groups) inspect(begin, ctx context.Context, now time.Time) {
	var names []string
	for id, v := range g.views {
		if !now.Before(v.waits) && (!v.checked || !v.behind && now.Sub(v.askedAt) >= lookInterval) {
			names = append(names, g.prefix+id)
		}
	}
	for some := range slices.Chunk(names, manyGroups) {
		if begin.Err() != nil || g.waiting(&g.refused, now) {
			return
		}
		asking, cancel := context.WithTimeout(ctx, requestTimeout)
		fetched := g.keeper.admin.FetchManyOffsets(asking, some...)
		cancel()
		for _, name := range some {
			g.inspected(g.views[strings.TrimPrefix(name, g.prefix)], fetched[name], now)
		}
	}
}

func (g *groups) inspected(v *view, f kadm.FetchOffsetsResponse, now time.Time) {
	switch {
	case errors.Is(f.Err, kerr.GroupAuthorizationFailed):
		g.refuse(&g.refused, f.Err, now)
		return
	case f.Err != nil && !errors.Is(f.Err, kerr.GroupIDNotFound):
		g.failed("reading a group", f.Err)
		return
	}
	elsewhere, exists, foreign := false, false, ""
	f.Fetched.Each(func(o kadm.OffsetResponse) {
		exists = true
		switch {
		case o.Metadata == g.behind:
			elsewhere = elsewhere || !g.owns(o.Topic, o.Partition)
		case o.Metadata != g.live:
			foreign = partitionID{o.Topic, o.Partition}.String()
		}
	})
	if foreign != "" {
		g.take(v, now, "it has an offset in "+foreign+" that this program has not committed")
		g.leave(v)
		return
	}
	v.checked, v.elsewhere, v.askedAt = true, elsewhere, now
	if !exists && !v.behind {
		g.forget(v)
	}
}

func (g *groups) owns(topic string, number int32) bool {
	for _, o := range g.owned {
		if o.Topic == topic && o.Partition == number {
			return true
		}
	}
	return false
}

// deleteUnused deletes the groups of endpoints that are behind nowhere, or are gone.
// Where it may not, groups are kept at the marks, so that no tool shows a backlog.
func (g *groups) deleteUnused(begin, ctx context.Context, now time.Time) {
	var names []string
	paused := g.waiting(&g.deleting, now)
	for id, v := range g.views {
		switch {
		case !g.unused(v) || now.Before(v.waits):
		case !paused:
			names = append(names, g.prefix+id)
		case g.keeper.options.Sender(id) == nil:
			g.forget(v)
		}
	}
	for some := range slices.Chunk(names, manyGroups) {
		if begin.Err() != nil || g.waiting(&g.deleting, now) {
			return
		}
		asking, cancel := context.WithTimeout(ctx, requestTimeout)
		deleted, err := g.keeper.admin.DeleteGroups(asking, some...)
		cancel()
		if err != nil {
			g.failed("deleting groups", err)
		}
		for name, r := range deleted {
			v := g.views[strings.TrimPrefix(name, g.prefix)]
			switch {
			case v == nil:
			case r.Err == nil, errors.Is(r.Err, kerr.GroupIDNotFound):
				g.forget(v)
				g.allow(&g.deleting)
			case errors.Is(r.Err, kerr.GroupAuthorizationFailed):
				g.refuse(&g.deleting, r.Err, now)
			case errors.Is(r.Err, kerr.NonEmptyGroup):
				g.take(v, now, "it has members")
				g.leave(v)
			default:
				g.failed("deleting a group", r.Err)
			}
		}
	}
}

// refreshMarks reads the ingest group's offsets, once a minute, and if an endpoint has
// a partition in which it isn't behind any more, or its group has none yet.
func (g *groups) refreshMarks(ctx context.Context, now time.Time) {
	needed := now.Sub(g.marksAt) >= marksAfter
	for _, v := range g.views {
		needed = needed || v.checked && !now.Before(v.waits) && slices.ContainsFunc(v.places, func(p place) bool {
			return p.cursor < 0 && (p.sentBehind || p.sentAt.IsZero())
		})
	}
	if !needed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	committed, err := g.keeper.admin.FetchOffsets(ctx, g.keeper.options.Group)
	if err != nil {
		g.failed("reading the ingest group's offsets", err)
		return
	}
	g.marksAt = now
	for i, o := range g.owned {
		g.marks[i] = -1
		if c, is := committed.Lookup(o.Topic, o.Partition); is && c.Err == nil {
			g.marks[i] = c.At
		}
	}
}

// offsets are what is committed in one group.
type offsets struct {
	view *view
	due  []int // of its places
}

// commit commits what has moved.
func (g *groups) commit(begin, ctx context.Context, now time.Time) {
	var all []offsets
	for _, v := range g.views {
		if due := g.due(v, now); len(due) > 0 {
			all = append(all, offsets{v, due})
		}
	}
	if len(all) == 0 || !g.resolve(ctx, now) {
		return
	}
	each(begin, all, func(o offsets) {
		if g.waiting(&g.refused, now) {
			return
		}
		asking, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		response, err := g.request(o).RequestWith(asking, g.keeper.client)
		if err != nil {
			g.failed("committing in a group", err)
			return
		}
		g.committed(o, response, now)
	})
}

// resolve asks for the ids of the ingest topics, once a minute: they may be made anew.
// kadm would ask for each commit.
func (g *groups) resolve(ctx context.Context, now time.Time) bool {
	if now.Sub(g.idsAt) < lookInterval {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := g.keeper.admin.ListTopics(ctx, g.keeper.options.Topics...)
	if err != nil {
		g.failed("asking for the ingest topics", err)
		return false
	}
	g.idsAt = now
	for _, t := range listed {
		if t.Err == nil {
			g.ids[t.Topic] = t.ID
		}
	}
	return true
}

func (g *groups) request(o offsets) *kmsg.OffsetCommitRequest {
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group = g.prefix + o.view.id
	for _, i := range o.due {
		owned := g.owned[i]
		if n := len(request.Topics); n == 0 || request.Topics[n-1].Topic != owned.Topic { // they are in order
			topic := kmsg.NewOffsetCommitRequestTopic()
			// Both: which of them counts depends on the brokers' version.
			topic.Topic, topic.TopicID = owned.Topic, g.ids[owned.Topic]
			request.Topics = append(request.Topics, topic)
		}
		topic := &request.Topics[len(request.Topics)-1]
		partition := kmsg.NewOffsetCommitRequestTopicPartition()
		partition.Partition, partition.Offset, partition.Metadata = owned.Partition, g.offset(o.view, i), kmsg.StringPtr(g.live)
		if o.view.places[i].cursor >= 0 {
			partition.Metadata = kmsg.StringPtr(g.behind)
		}
		topic.Partitions = append(topic.Partitions, partition)
	}
	return request
}

// committed takes the answer to a commit.
func (g *groups) committed(o offsets, response *kmsg.OffsetCommitResponse, now time.Time) {
	codes := make(map[partitionID]int16)
	for _, t := range response.Topics {
		for name, id := range g.ids {
			if t.Topic == name || t.Topic == "" && kadm.TopicID(t.TopicID) == id {
				for _, p := range t.Partitions {
					codes[partitionID{name, p.Partition}] = p.ErrorCode
				}
			}
		}
	}
	for _, i := range o.due {
		owned, p := g.owned[i], &o.view.places[i]
		code, answered := codes[partitionID{owned.Topic, owned.Partition}]
		switch err := kerr.ErrorForCode(code); {
		case !answered:
		case err == nil:
			p.sent, p.sentBehind, p.sentAt = g.offset(o.view, i), p.cursor >= 0, now
			g.allow(&g.refused)
			g.give(o.view)
		case errors.Is(err, kerr.GroupAuthorizationFailed):
			g.refuse(&g.refused, err, now)
			return
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.RebalanceInProgress),
			errors.Is(err, kerr.StaleMemberEpoch), errors.Is(err, kerr.InconsistentGroupProtocol), errors.Is(err, kerr.GroupIDNotFound):
			g.take(o.view, now, "it has members")
			return
		default:
			g.failed("committing in a group", err)
		}
	}
}

// failed is about what the next round tries again: the view is late meanwhile.
func (g *groups) failed(what string, err error) {
	if g.keeper.client.Context().Err() == nil {
		g.keeper.options.Log.Debug("groups that show who is behind are not up to date: trying again", zap.String("problem", what+": "+untrusted.Text(err.Error())))
	}
}

// refuse records that a right is missing, and logs it once.
func (g *groups) refuse(p *pause, err error, now time.Time) {
	g.mu.Lock()
	first := p.why == ""
	p.until, p.why = now.Add(lookInterval), untrusted.Text(err.Error())
	g.mu.Unlock()
	switch {
	case !first:
	case p == &g.refused:
		g.keeper.options.Log.Warn("Kafka's tools don't see the backlog of endpoints that are behind: this user may not commit in their groups. They are caught up all the same; allow Read on the prefix, or set positions.groups to false",
			zap.String("group", g.prefix+"*"), zap.String("problem", p.why))
	default:
		g.keeper.options.Log.Warn("groups of endpoints that are not behind any more stay in Kafka: this user may not delete them. Allow Delete on the prefix",
			zap.String("group", g.prefix+"*"), zap.String("problem", p.why))
	}
}

// allow records that a right is there.
func (g *groups) allow(p *pause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*p = pause{}
}

func (g *groups) waiting(p *pause, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(p.until)
}

// take records that a group is somebody else's, and logs it once.
func (g *groups) take(v *view, now time.Time, why string) {
	v.waits, v.checked = now.Add(lookInterval), false
	name, why := g.prefix+v.id, untrusted.Text(why)
	g.mu.Lock()
	_, known := g.taken[v.id]
	g.taken[v.id] = why
	g.mu.Unlock()
	if s := g.keeper.options.Sender(v.id); s != nil && !known {
		g.keeper.options.Log.Warn("Kafka's tools don't see the backlog of an endpoint: its group is somebody else's, and is left alone. It is caught up all the same",
			s.Endpoint().LogName(), zap.String("group", name), zap.String("problem", why))
	}
}

// give records that a group is ours.
func (g *groups) give(v *view) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.taken, v.id)
}

// notes returns why Kafka's tools don't see all, in words.
func (g *groups) notes() []string {
	const most = 10
	g.mu.Lock()
	defer g.mu.Unlock()
	var notes []string
	if g.refused.why != "" {
		notes = append(notes, fmt.Sprintf("not shown to Kafka's tools: allow Read on groups that begin with %s, or set positions.groups to false: %s", g.prefix, g.refused.why))
	}
	if g.deleting.why != "" {
		notes = append(notes, fmt.Sprintf("groups of endpoints that are not behind any more stay in Kafka: allow Delete on groups that begin with %s: %s", g.prefix, g.deleting.why))
	}
	for _, id := range slices.Sorted(maps.Keys(g.taken))[:min(most, len(g.taken))] {
		notes = append(notes, fmt.Sprintf("the group %s is somebody else's, and doesn't show the endpoint's backlog: %s", g.prefix+id, g.taken[id]))
	}
	return notes
}
