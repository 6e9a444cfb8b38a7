package catchup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/sinks"
)

// viewer is a copy whose rounds the test makes.
type viewer struct {
	*copyOf
	owned []*event.Ownership
	now   *time.Time
}

func newViewer(t *testing.T, now *time.Time, n int, partitions []int32, connect ...kgo.Opt) *viewer {
	t.Helper()
	v := &viewer{copyOf: build(t, KeeperOptions{Groups: true, Connect: connect}, n), now: now}
	t.Cleanup(v.Close)
	for _, p := range partitions {
		v.own(t, p)
	}
	v.inForce()
	return v
}

func (v *viewer) own(t *testing.T, partition int32) *event.Ownership {
	t.Helper()
	o := &event.Ownership{Topic: events, Partition: partition}
	if err := v.Assigned(t.Context(), o, 1000, Version); err != nil {
		t.Fatal(err)
	}
	v.owned = append(v.owned, o)
	return o
}

// inForce sets the endpoints.
func (v *viewer) inForce() {
	var set []endpoints.Endpoint
	for _, s := range v.order {
		set = append(set, s.Endpoint())
	}
	v.Seeks(set)
}

func (v *viewer) round(t *testing.T) { t.Helper(); v.groups.round(t.Context(), *v.now) }

// tools is what Kafka's tools see, and do.
type tools struct {
	*kadm.Client
	t *testing.T
}

func toolsOf(t *testing.T, connect ...kgo.Opt) tools {
	t.Helper()
	c, err := kgo.NewClient(connect...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return tools{kadm.NewClient(c), t}
}

// commit commits offsets of partitions from the first on.
func (a tools) commit(name, metadata string, at ...int64) {
	a.t.Helper()
	all := make(kadm.Offsets)
	for p, offset := range at {
		all.Add(kadm.Offset{Topic: events, Partition: int32(p), At: offset, LeaderEpoch: -1, Metadata: metadata})
	}
	if err := a.CommitAllOffsets(a.t.Context(), name, all); err != nil {
		a.t.Fatal(err)
	}
}

// offsets returns a group's: - is none. Without any there is no group.
func (a tools) offsets(name string) string {
	a.t.Helper()
	listed, err := a.ListGroups(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	if _, is := listed[name]; !is {
		return ""
	}
	got, err := a.FetchOffsets(a.t.Context(), name)
	if err != nil {
		a.t.Fatal(err)
	}
	at := []string{"-", "-", "-"}
	got.Each(func(o kadm.OffsetResponse) { at[o.Partition] = fmt.Sprint(o.At) })
	return strings.Join(at, " ")
}

func groupOf(n int) string { return group + "." + idOf(n) }

// A group shows an endpoint's positions while it is behind, also those of another
// copy; and in every other partition the mark.
func TestGroups(t *testing.T) {
	t.Parallel()
	cluster := brokers(t)
	at := kgo.SeedBrokers(cluster.ListenAddrs()...)
	now := time.Now()
	kafka, a, b := toolsOf(t, at), newViewer(t, &now, 2, []int32{0, 1}, at), newViewer(t, &now, 2, []int32{2}, at)
	const member = "" // what a Kafka client has there
	kafka.commit(group, member, 100, 200, 300)
	after := func(what string, d time.Duration, want string) {
		t.Helper()
		now = now.Add(d)
		a.round(t)
		b.round(t)
		if got := kafka.offsets(groupOf(0)); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		if got := kafka.offsets(groupOf(1)); got != "" {
			t.Errorf("%s: one that isn't behind has %q", what, got)
		}
	}
	after("nobody is behind", 0, "")
	a.order[0].Seek(a.owned[0], 10, -1)
	after("it is behind at one copy", tickInterval, "10 200 -")
	after("the other one looks", lookInterval, "10 200 300")
	a.order[0].Seek(a.owned[0], 20, -1)
	kafka.commit(group, member, 120, 220, 320)
	after("it moves", tickInterval, "20 200 300")
	after("marks are a minute old", marksAfter, "20 220 320")
	b.order[0].Seek(b.owned[0], 30, -1)
	after("it is behind at both", tickInterval, "20 220 30")
	caughtUp(t, a.order[0], a.owned[0])
	after("at one it isn't any more", tickInterval, "120 220 30")
	kafka.commit(group, member, 130, 230, 330)
	after("at the other one it stands still", 2*lookInterval, "130 230 30")
	caughtUp(t, b.order[0], b.owned[0])
	after("it is behind nowhere", tickInterval, "")
	for range 3 {
		after("and stays so", lookInterval, "")
	}
}

// A group that a copy deletes, since it was the last one at which the endpoint was
// behind, isn't made anew by one that was so a little earlier.
func TestGroupThatAnotherCopyDeletes(t *testing.T) {
	t.Parallel()
	cluster := brokers(t)
	at := kgo.SeedBrokers(cluster.ListenAddrs()...)
	now := time.Now()
	kafka, a, b := toolsOf(t, at), newViewer(t, &now, 1, []int32{0}, at), newViewer(t, &now, 1, []int32{1}, at)
	kafka.commit(group, "", 100, 200)
	a.order[0].Seek(a.owned[0], 10, -1)
	b.order[0].Seek(b.owned[0], 20, -1)
	after := func(what string, d time.Duration, want string) {
		t.Helper()
		now = now.Add(d)
		a.round(t)
		b.round(t)
		if got := kafka.offsets(groupOf(0)); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	after("it is behind at both", 0, "10 20 -")
	caughtUp(t, b.order[0], b.owned[0])
	after("at one it isn't any more", lookInterval/2, "10 200 -")
	caughtUp(t, a.order[0], a.owned[0])
	after("nor at the other one", tickInterval, "")
	kafka.commit(group, "", 110, 210)
	for range 30 {
		after("and stays so", tickInterval, "")
	}
	if n := len(a.groups.views) + len(b.groups.views); n > 0 {
		t.Errorf("%d groups are still to be shown", n)
	}
}

// A copy that gets a partition goes on with its groups; what is there of a copy that
// crashed, of positions that have ended and of endpoints that are gone, is deleted.
func TestGroupsThatAreLeft(t *testing.T) {
	t.Parallel()
	cluster := brokers(t)
	at := kgo.SeedBrokers(cluster.ListenAddrs()...)
	now := time.Now()
	kafka, a := toolsOf(t, at), newViewer(t, &now, 4, []int32{0, 1, 2}, at)
	kafka.commit(group, "", 100, 200, 300)
	for i := range 4 {
		a.order[i].Seek(a.owned[0], int64(i), -1)
	}
	a.round(t) // and it is gone
	b := newViewer(t, &now, 2, []int32{0, 1, 2}, at)
	b.order[0].Seek(b.owned[0], 7, -1)
	kafka.commit(group+".eu", Version, 1)           // another fleet, whose prefix this one's is
	kafka.commit(group+".reports", "", 2)           // somebody else's
	kafka.commit("other."+idOf(3), a.groups.behind) // not of the prefix
	want := func(what string, want ...string) {
		t.Helper()
		b.round(t)
		var got []string
		for i := range 4 {
			got = append(got, kafka.offsets(groupOf(i)))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		if got := kafka.offsets(group + ".eu"); got != "1 - -" {
			t.Errorf("%s: the other fleet has %q", what, got)
		}
		if got := kafka.offsets(group + ".reports"); got != "2 - -" {
			t.Errorf("%s: somebody else has %q", what, got)
		}
	}
	want("the first look", "7 200 300", "", "2 200 300", "3 200 300")
	now = now.Add(tickInterval)
	want("an endpoint may be new", "7 200 300", "", "2 200 300", "3 200 300")
	now = now.Add(lookInterval)
	want("the second look", "7 200 300", "", "", "")
	if _, err := kafka.DeleteGroup(t.Context(), groupOf(0)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookInterval)
	want("somebody has deleted it", "7 200 300", "", "", "")
	if n := b.logged("somebody else's"); n > 0 {
		t.Errorf("%d lines of groups that are no endpoint's", n)
	}
}

// end ends the ownership, and so all positions in it.
func (s *senders) end(o *event.Ownership) { s.behind.End(o) }

// The group of an endpoint that is deleted goes with it.
func TestGroupOfADeletedEndpoint(t *testing.T) {
	t.Parallel()
	cluster := brokers(t)
	at := kgo.SeedBrokers(cluster.ListenAddrs()...)
	now := time.Now()
	kafka, a := toolsOf(t, at), newViewer(t, &now, 1, []int32{0}, at)
	a.order[0].Seek(a.owned[0], 5, -1)
	a.round(t)
	if got := kafka.offsets(groupOf(0)); got != "5 - -" {
		t.Fatalf("behind: %q", got)
	}
	a.senders.mu.Lock()
	delete(a.senders.all, idOf(0))
	a.senders.mu.Unlock()
	now = now.Add(tickInterval)
	a.round(t)
	if got := kafka.offsets(groupOf(0)); got != "" || len(a.groups.views) > 0 {
		t.Errorf("deleted: %q, %d views", got, len(a.groups.views))
	}
}

// A group with the name of an endpoint's that somebody has is left alone, whether it
// has members or only offsets; the other endpoints' groups are kept.
func TestGroupOfSomebodyElse(t *testing.T) {
	t.Parallel()
	cluster := brokers(t)
	at := kgo.SeedBrokers(cluster.ListenAddrs()...)
	now := time.Now()
	kafka, a := toolsOf(t, at), newViewer(t, &now, 3, []int32{0}, at)
	member, err := kgo.NewClient(at, kgo.ConsumerGroup(groupOf(0)), kgo.ConsumeTopics(events), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	eventually.Holds(t, "the member has joined", func() bool {
		d, err := kafka.DescribeGroups(t.Context(), groupOf(0))
		return err == nil && d[groupOf(0)].State == "Stable"
	})
	kafka.commit(groupOf(1), "somebody's", 3)
	for i, s := range a.order {
		s.Seek(a.owned[0], int64(10+i), -1)
	}
	notes := func(what string, want int) {
		t.Helper()
		for range 3 {
			a.round(t)
			now = now.Add(lookInterval)
		}
		s := a.Status()
		if len(s.Groups) != want || len(s.Notes) > 0 || !strings.Contains(fmt.Sprint(s.Groups), groupOf(1)) {
			t.Errorf("%s: %q, %q", what, s.Groups, s.Notes)
		}
	}
	notes("both are somebody's", 2)
	if n := a.logged("its group is somebody else's"); n != 2 {
		t.Errorf("%d lines", n)
	}
	if got := kafka.offsets(groupOf(1)); got != "3 - -" {
		t.Errorf("somebody's has %q", got)
	}
	if got := kafka.offsets(groupOf(2)); got != "12 - -" {
		t.Errorf("ours has %q", got)
	}
	member.Close()
	notes("the member has left", 1)
	if got := kafka.offsets(groupOf(0)); got != "10 - -" {
		t.Errorf("the member has left: %q", got)
	}
	a.end(a.owned[0])
	a.round(t)
	now = now.Add(lookInterval)
	a.round(t)
	if s := a.Status(); len(s.Groups) > 0 || kafka.offsets(groupOf(1)) != "3 - -" {
		t.Errorf("nobody is behind: %q", s.Groups)
	}
}

// What the user may not do is said once, is tried again after a minute, and keeps
// nothing else from being done.
func TestGroupsWithoutRights(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, events), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "admin", "admin"), kfake.User("PLAIN", "app", "pass",
			kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: events, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true},
			kfake.ACL{Resource: kmsg.ACLResourceTypeGroup, Name: group, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	as := func(user, pass string) []kgo.Opt {
		return []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.SASL(plain.Auth{User: user, Pass: pass}.AsMechanism())}
	}
	now := time.Now()
	kafka, a := toolsOf(t, as("admin", "admin")...), newViewer(t, &now, 20, []int32{0}, as("app", "pass")...)
	kafka.commit(group, "", 100)
	grant := func(operation kadm.ACLOperation) {
		t.Helper()
		created, err := kafka.CreateACLs(t.Context(), kadm.NewACLs().Allow("User:app").AllowHosts("*").Groups(group+".").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(operation))
		if err != nil || len(created) == 0 || created[0].Err != nil {
			t.Fatal(err, created)
		}
	}
	for _, s := range a.order {
		s.Seek(a.owned[0], 10, -1)
	}
	note := func(what, logged string, lines int, notes ...string) {
		t.Helper()
		if got := a.logged(logged); got != lines {
			t.Errorf("%s: %d lines", what, got)
		}
		s := a.Status()
		same := len(s.Groups) == len(notes) && len(s.Notes) == 0
		for i := range s.Groups {
			same = same && strings.Contains(s.Groups[i], notes[i])
		}
		if !same {
			t.Errorf("%s: %q, %q", what, s.Groups, s.Notes)
		}
	}
	var asked atomic.Int64
	cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked.Add(1)
		return nil, nil, false
	})
	for range 3 {
		a.round(t)
		now = now.Add(tickInterval)
		if n := asked.Swap(0); n > 20 {
			t.Errorf("%d requests", n)
		}
	}
	note("no Read", "may not commit", 1, "allow Read on groups that begin with "+group+".")
	caughtUp(t, a.order[0], a.owned[0])
	now = now.Add(lookInterval)
	a.round(t)
	if n := len(a.groups.views); n != 19 {
		t.Errorf("%d groups are to be shown, want 19", n)
	}
	grant(kadm.OpRead)
	now = now.Add(lookInterval)
	a.round(t)
	note("Read", "may not commit", 1)
	if got := kafka.offsets(groupOf(19)); got != "10 - -" {
		t.Errorf("Read: %q", got)
	}
	a.end(a.owned[0])
	for range 3 {
		a.round(t)
		now = now.Add(tickInterval)
	}
	note("no Delete", "may not delete", 1, "allow Delete on groups that begin with "+group+".")
	if got := kafka.offsets(groupOf(1)); got != "100 - -" {
		t.Errorf("no Delete: %q, want the mark", got)
	}
	grant(kadm.OpDelete)
	now = now.Add(lookInterval)
	a.round(t)
	note("Delete", "may not delete", 1)
	if got := kafka.offsets(groupOf(1)); got != "" {
		t.Errorf("Delete: %q", got)
	}
}

// Nothing is asked while nobody is behind; nothing is committed that is there already,
// but once an hour.
func TestGroupsThatStandStill(t *testing.T) {
	t.Parallel()
	cluster := brokers(t)
	var requests, looks, commits atomic.Int64
	cluster.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		requests.Add(1)
		switch r.(type) {
		case *kmsg.ListGroupsRequest:
			looks.Add(1)
		case *kmsg.OffsetCommitRequest:
			commits.Add(1)
		}
		return nil, nil, false
	})
	at := kgo.SeedBrokers(cluster.ListenAddrs()...)
	now := time.Now()
	kafka, a := toolsOf(t, at), newViewer(t, &now, 1, []int32{0, 1}, at)
	kafka.commit(group, "", 100, 200)
	a.Seeks(nil) // nobody can be behind
	a.round(t)
	requests.Store(0)
	looks.Store(0)
	for range 100 {
		now = now.Add(tickInterval)
		a.round(t)
	}
	if n := requests.Load(); n > 0 {
		t.Errorf("%d requests, and nobody can be behind", n)
	}
	a.inForce()
	for range 48 { // four minutes
		now = now.Add(tickInterval)
		a.round(t)
	}
	if n, all := looks.Load(), requests.Load(); n > 4 || all > 2*n {
		t.Errorf("%d looks, %d requests, and nobody is behind", n, all)
	}
	a.order[0].Seek(a.owned[0], 10, -1)
	a.round(t)
	commits.Store(0)
	for range 600 { // fifty minutes
		now = now.Add(tickInterval)
		a.round(t)
	}
	if n := commits.Load(); n > 0 {
		t.Errorf("%d commits, and nothing has moved", n)
	}
	now = now.Add(recommitAfter / 2)
	a.round(t)
	if n := commits.Load(); n != 1 {
		t.Errorf("%d commits in the second hour, want 1", n)
	}
}

// A round that is too long for the brokers ends, and the next ones do the rest.
func TestRoundsOfManyGroups(t *testing.T) {
	t.Parallel()
	const many = 900
	cluster := brokers(t)
	var commits atomic.Int64
	cluster.ControlKey(kmsg.OffsetCommit.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		commits.Add(1)
		<-time.After(time.Millisecond)
		return nil, nil, false
	})
	at := kgo.SeedBrokers(cluster.ListenAddrs()...)
	now := time.Now()
	a := newViewer(t, &now, many, []int32{0, 1, 2}, at)
	for i, s := range a.order {
		for _, o := range a.owned {
			s.Seek(o, int64(i), -1)
		}
	}
	a.groups.begin = 100 * time.Millisecond
	for commits.Load() == 0 { // the first rounds look whether the groups are somebody else's
		a.round(t)
	}
	if n := commits.Load(); n >= many {
		t.Errorf("%d commits in a round of 100 ms", n)
	}
	a.groups.begin = time.Minute
	a.round(t)
	if n := commits.Load(); n != many {
		t.Errorf("%d commits, want %d", n, many)
	}
}

// A round while 900 endpoints are behind in 16 partitions and all have moved costs
// what these commits do; while nothing moves, nothing.
func BenchmarkGroups(b *testing.B) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(16, events))
	if err != nil {
		b.Fatal(err)
	}
	defer cluster.Close()
	s := (&senders{behind: sinks.NewBehind(), all: make(map[string]*sinks.Sender)}).add(900)
	k, err := NewKeeper(KeeperOptions{
		Group: group, Topics: []string{events}, Groups: true, Behind: s.behind, Sender: s.sender,
		Connect: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, Log: zap.NewNop(),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	var owned []*event.Ownership
	for p := range int32(16) {
		o := &event.Ownership{Topic: events, Partition: p}
		if err := k.Assigned(context.Background(), o, 0, Version); err != nil {
			b.Fatal(err)
		}
		owned = append(owned, o)
	}
	k.groups.begin = time.Minute
	at := int64(0)
	move := func() {
		at++
		for _, o := range owned {
			for _, one := range s.order {
				one.Seek(o, at, -1)
			}
		}
	}
	move()
	now := time.Now()
	k.groups.round(context.Background(), now)
	b.Run("all have moved", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			move()
			b.StartTimer()
			k.groups.round(context.Background(), now)
		}
	})
	b.Run("nothing moves", func(b *testing.B) {
		for b.Loop() {
			k.groups.round(context.Background(), now)
		}
	})
}
