package deadletter

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// What run needs of the dead-letter topic, and what it says where a right is
// missing.
func TestRightsOnTheTopic(t *testing.T) {
	of := func(operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, o := range operations {
			acls = append(acls, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: o, Allow: true})
		}
		return acls
	}
	const write, describe, configs, create = kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationCreate
	for title, test := range map[string]struct {
		acls   []kfake.ACL
		exists bool
		fails  string // what Open says; "" is that it opens
		logs   string
		stores bool
	}{
		"all that a topic that is there needs": {acls: of(write, describe, configs), exists: true, stores: true},
		"write alone, which includes describe": {acls: of(write), exists: true, stores: true},
		"no write":                             {acls: of(describe), exists: true, logs: "refuses what this client writes"},
		"none":                                 {exists: true, fails: "the right Write on the topic, which includes Describe"},
		"create, of a topic that is missing":   {acls: of(write, create, configs), logs: "created the dead-letter topic", stores: true},
		"no create, of one that is missing":    {acls: of(write), fails: "is missing and can't be created (create it yourself, or give this client the right Create"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "app", "secret", test.acls...), kfake.Superuser("PLAIN", "admin", "secret"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(k.Close)
			if test.exists {
				if err := k.CreateTopic(name, 1, nil); err != nil {
					t.Fatal(err)
				}
			}
			logged, lines := observer.New(zap.InfoLevel)
			topic, err := Open(t.Context(), name, nil, append(connect(k), kgo.SASL(plain.Auth{User: "app", Pass: "secret"}.AsMechanism())), zap.New(logged))
			if err != nil {
				if test.fails == "" || !strings.Contains(err.Error(), test.fails) || !strings.Contains(err.Error(), name) {
					t.Errorf("Open fails with %v, want %q", err, test.fails)
				}
				return
			}
			defer topic.Close(t.Context())
			if test.fails != "" {
				t.Error("it opens")
			}
			if title == "write alone, which includes describe" && topic.batch != defaultMaxBytes {
				t.Errorf("batches have %d bytes", topic.batch)
			}
			if test.logs != "" && lines.FilterMessageSnippet(test.logs).Len() != 1 {
				t.Errorf("the log is %v", lines.All())
			}
			if test.stores {
				ev, settled := newLetter(nil, []byte("v"), event.NoIndex)
				topic.Put(ev, event.Undecodable, "", nil)
				eventually.Holds(t, "a letter is stored", func() bool { return settled.Load() == 1 })
			}
		})
	}
}

// Whatever brokers say to a wish to create it, a topic that is there is used.
func TestTopicIsNotCreatedAgain(t *testing.T) {
	t.Parallel()
	k := cluster(t)
	if err := k.CreateTopic(name, 1, nil); err != nil {
		t.Fatal(err)
	}
	k.ControlKey(kmsg.CreateTopics.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		t.Error("it is to be created")
		return nil, nil, false
	})
	open(t, k)
}

// Brokers that give no producer id store letters without one, in their order.
func TestNoIdempotentWrites(t *testing.T) {
	for title, prevent := range map[string]func(*testing.T) *kfake.Cluster{
		"refused": func(t *testing.T) *kfake.Cluster {
			k := cluster(t)
			k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ClusterAuthorizationFailed, Count: -1, TopLevel: true})
			return k
		},
		"not known": func(t *testing.T) *kfake.Cluster {
			versions := kversion.Stable()
			versions.SetMaxKeyVersion(kmsg.InitProducerID.Int16(), -1)
			k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.MaxVersions(versions))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(k.Close)
			return k
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k := prevent(t)
			logged, lines := observer.New(zap.WarnLevel)
			topic, err := Open(t.Context(), name, nil, connect(k), zap.New(logged))
			if err != nil {
				t.Fatal(err)
			}
			const letters = 3000
			for i := range letters {
				ev, _ := newLetter(nil, []byte(strconv.Itoa(i)), event.NoIndex)
				topic.Put(ev, event.Undecodable, "", nil)
			}
			if err := topic.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for i, r := range read(t, k, letters) {
				if string(r.Value) != strconv.Itoa(i) {
					t.Fatalf("letter %d is %s", i, r.Value)
				}
			}
			if n := lines.FilterMessageSnippet("refuse idempotent writes").Len(); (title == "refused") != (n == 1) {
				t.Errorf("the log is %v", lines.All())
			}
		})
	}
}

// A broker of before Kafka 2.1 doesn't know zstd: a large letter is packed as it
// can read it.
func TestNoZstd(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.MaxVersions(kversion.V2_0_0()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	if err := k.CreateTopic(name, 1, map[string]string{"max.message.bytes": "100000"}); err != nil {
		t.Fatal(err)
	}
	var codec atomic.Int32
	k.ControlKey(kmsg.Produce.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		const attributes = 22 // of a batch, the lower byte: codec in three bits
		codec.Store(int32(request.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records[attributes] & 7))
		return nil, nil, false
	})
	topic := open(t, k)
	ev, settled := newLetter(nil, make([]byte, 1<<20), event.NoIndex)
	topic.Put(ev, event.Undecodable, "", nil)
	eventually.Holds(t, "it is stored", func() bool { return settled.Load() == 1 })
	if s := topic.Status(); s.Cut != 0 || codec.Load() != int32(kgo.CodecGzip) {
		t.Errorf("%d are cut; the codec is %d", s.Cut, codec.Load())
	}
}
