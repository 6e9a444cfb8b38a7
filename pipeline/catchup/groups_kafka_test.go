//go:build integration

package catchup

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"twinegress/internal/eventually"
	"twinegress/internal/kafka"
	"twinegress/internal/kafkatest"
)

// What an Apache Kafka with access lists makes of the groups: without rights, with
// Read, with Delete as well; beside a group that somebody has; and what tools make of
// them.
func TestGroupsOnKafka(t *testing.T) {
	const jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required "
	cluster, err := kafkatest.Start(t.Context(), kafkatest.Config{Dir: t.TempDir(), Listeners: []string{"SASL_PLAINTEXT"}, Properties: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS",
		"sasl.enabled.mechanisms":                             "PLAIN",
		"listener.name.sasl_plaintext.plain.sasl.jaas.config": jaas + `user_app="secret";`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	app := []kgo.Opt{kgo.SeedBrokers(cluster.ListenerAddrs("SASL_PLAINTEXT")...), kgo.SASL(plain.Auth{User: "app", Pass: "secret"}.AsMechanism())}
	all := kgo.SeedBrokers(cluster.Addrs()...)
	tools := toolsOf(t, all)
	allow := func(b *kadm.ACLBuilder) {
		t.Helper()
		created, err := tools.CreateACLs(t.Context(), b.Allow("User:app").AllowHosts("*"))
		if err != nil || len(created) != 1 || created[0].Err != nil {
			t.Fatal(err, created)
		}
	}
	if _, err := tools.CreateTopic(t.Context(), 3, 1, nil, events); err != nil {
		t.Fatal(err)
	}
	allow(kadm.NewACLs().Topics(events).ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead))
	allow(kadm.NewACLs().Groups(group).ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead))
	onGroups := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Groups(group + ".").ResourcePatternType(kadm.ACLPatternPrefixed)
	}
	producer, err := kgo.NewClient(all, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(events))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for i := range int32(300) {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Partition: i % 3, Value: []byte("{}")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	tools.commit(group, "a member's id", 100, 100, 95)
	member, err := kgo.NewClient(all, kgo.ConsumerGroup(groupOf(1)), kgo.ConsumeTopics(events), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	eventually.Holds(t, "somebody's member has joined", func() bool {
		d, err := tools.DescribeGroups(t.Context(), groupOf(1))
		return err == nil && d[groupOf(1)].State == "Stable"
	})

	now := time.Now()
	a := newViewer(t, &now, 3, []int32{0, 1, 2}, app...)
	for i, s := range a.order {
		s.Seek(a.owned[0], int64(10+i), -1)
	}
	notes := func(what string, want ...string) {
		t.Helper()
		a.round(t)
		got := a.Status().Groups
		same := len(got) == len(want)
		for i := range got {
			same = same && strings.Contains(got[i], want[i])
		}
		if !same {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	right := func(what string, read, deletion bool) {
		t.Helper()
		rights, err := kafka.OpenRights(t.Context(), app)
		if err != nil {
			t.Fatal(err)
		}
		defer rights.Close()
		if err := rights.Group(t.Context(), group+".check"); kafka.IsRefused(err) == read {
			t.Errorf("%s: Read: %v", what, err)
		}
		if err := rights.GroupDelete(t.Context(), groupOf(0)); kafka.IsRefused(err) == deletion || !deletion && err == nil {
			t.Errorf("%s: Delete: %v", what, err)
		}
	}
	notes("no rights", "allow Read on groups that begin with "+group+".")
	right("no rights", false, false)
	allow(onGroups().Operations(kadm.OpRead))
	now = now.Add(lookInterval)
	eventually.Holds(t, "the right is in force", func() bool {
		a.round(t)
		now = now.Add(lookInterval)
		return len(a.Status().Groups) == 1 && strings.Contains(a.Status().Groups[0], groupOf(1)+" is somebody else's")
	})
	right("Read", true, false)
	for i, want := range map[int]string{0: "10 100 95", 1: "- - -", 2: "12 100 95"} {
		if got := tools.offsets(groupOf(i)); got != want {
			t.Errorf("group %d has %q, want %q", i, got, want)
		}
	}
	lags, err := tools.Lag(t.Context(), groupOf(0))
	if err != nil {
		t.Fatal(err)
	}
	if lag := lags[groupOf(0)]; lag.State != "Empty" || lag.Lag.Total() != 95 {
		t.Errorf("tools see %s with a lag of %d, want Empty and 95", lag.State, lag.Lag.Total())
	}

	for _, s := range a.order {
		caughtUp(t, s, a.owned[0])
	}
	notes("no Delete", "allow Delete on groups that begin with "+group+".")
	if got := tools.offsets(groupOf(0)); got != "100 100 95" {
		t.Errorf("it is not behind, and has %q", got)
	}
	allow(onGroups().Operations(kadm.OpDelete))
	now = now.Add(lookInterval)
	eventually.Holds(t, "the groups are deleted", func() bool {
		a.round(t)
		now = now.Add(lookInterval)
		return tools.offsets(groupOf(0)) == "" && tools.offsets(groupOf(2)) == ""
	})
	notes("nobody is behind")
	right("Delete", true, true)
	if got := tools.offsets(groupOf(1)); got == "" {
		t.Error("somebody's group is gone")
	}
	if got := fmt.Sprint(a.Status().Notes); got != "[]" {
		t.Error(got)
	}
}

// 900 endpoints that are behind in 16 partitions are shown within a few rounds.
func TestManyGroupsOnKafka(t *testing.T) {
	const partitions, many = 16, 900
	cluster, err := kafkatest.Start(t.Context(), kafkatest.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	at := kgo.SeedBrokers(cluster.Addrs()...)
	tools := toolsOf(t, at)
	if _, err := tools.CreateTopic(t.Context(), partitions, 1, nil, events); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var all []int32
	for p := range int32(partitions) {
		all = append(all, p)
	}
	a := newViewer(t, &now, many, all, at)
	shown := func(cursor int64) {
		t.Helper()
		for i, s := range a.order {
			for _, o := range a.owned {
				s.Seek(o, cursor+int64(i), -1)
			}
		}
		rounds, began := 0, time.Now()
		for behind := true; behind; rounds++ {
			a.round(t)
			now = now.Add(tickInterval)
			behind = false
			for _, v := range a.groups.views {
				for _, p := range v.places {
					behind = behind || p.sent != p.cursor
				}
			}
			if rounds > 100 {
				t.Fatal("they never are all shown")
			}
		}
		t.Logf("%d groups in %d rounds, %v", many, rounds, time.Since(began).Round(time.Millisecond))
	}
	shown(1000)
	shown(2000)
	got := tools.FetchManyOffsets(t.Context(), groupOf(0), groupOf(many-1))
	for name, want := range map[string]int64{groupOf(0): 2000, groupOf(many - 1): 2000 + many - 1} {
		for p := range int32(partitions) {
			if o, is := got[name].Fetched.Lookup(events, p); !is || o.At != want {
				t.Errorf("%s has %d in partition %d, want %d", name, o.At, p, want)
			}
		}
	}
	for _, o := range a.owned {
		a.end(o)
	}
	eventually.Holds(t, "the groups are deleted", func() bool {
		a.round(t)
		now = now.Add(tickInterval)
		listed, err := tools.ListGroups(t.Context())
		return err == nil && len(listed) == 0
	})
}
