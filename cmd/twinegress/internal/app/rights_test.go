package app

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

// Each right by itself: what is said if it alone is missing.
func TestRights(t *testing.T) {
	const (
		topic, group, cluster, id     = kmsg.ACLResourceTypeTopic, kmsg.ACLResourceTypeGroup, kmsg.ACLResourceTypeCluster, kmsg.ACLResourceTypeTransactionalId
		read, write, describe, create = kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe, kmsg.ACLOperationCreate
		configs, idempotent           = kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationIdempotentWrite
	)
	allow := func(resource kmsg.ACLResourceType, name string, operation kmsg.ACLOperation) kfake.ACL {
		pattern := kmsg.ACLResourcePatternTypeLiteral
		if strings.HasSuffix(name, "*") {
			pattern, name = kmsg.ACLResourcePatternTypePrefixed, strings.TrimSuffix(name, "*")
		}
		return kfake.ACL{Resource: resource, Name: name, Pattern: pattern, Operation: operation, Allow: true}
	}
	all := map[string]kfake.ACL{
		"ingest read":       allow(topic, "in", read),
		"ingest configs":    allow(topic, "in", configs),
		"group read":        allow(group, "twinegress", read),
		"letters write":     allow(topic, "letters", write),
		"letters configs":   allow(topic, "letters", configs),
		"idempotent":        allow(cluster, "kafka-cluster", idempotent),
		"endpoints read":    allow(topic, "endpoints", read),
		"endpoints write":   allow(topic, "endpoints", write),
		"endpoints configs": allow(topic, "endpoints", configs),
		"writer write":      allow(id, "endpoints-writer", write),
		"letters read":      allow(topic, "letters", read),
		"replay read":       allow(group, "twinegress-replay*", read),
		"status read":       allow(topic, "status", read),
		"status write":      allow(topic, "status", write),
		"positions read":    allow(topic, "positions", read),
		"positions write":   allow(topic, "positions", write),
		"groups read":       allow(group, "twinegress.*", read),
		"groups delete":     allow(group, "twinegress.*", kmsg.ACLOperationDelete),
	}
	everything := []string{"in", "letters", "endpoints", "positions", "status"}
	for name, tt := range map[string]struct {
		without []string
		more    []kfake.ACL
		topics  []string
		failed  []string // user, kind, name, operation, and a part of the error
		noted   []string // the same, of a note
	}{
		"all rights":             {topics: everything},
		"ingest topic, no Read":  {without: []string{"ingest read"}, more: []kfake.ACL{allow(topic, "in", describe)}, topics: everything, failed: []string{"ingest topic in Read: allow Read on the topic: TOPIC_AUTHORIZATION_FAILED"}},
		"ingest topic, nothing":  {without: []string{"ingest read", "ingest configs"}, noted: []string{"ingest topic in DescribeConfigs: default size"}, topics: everything, failed: []string{"ingest topic in Read: TOPIC_AUTHORIZATION_FAILED"}},
		"ingest topic missing":   {topics: everything[1:], failed: []string{"ingest topic in Read: UNKNOWN_TOPIC_OR_PARTITION"}, noted: []string{"ingest topic in DescribeConfigs: not known: UNKNOWN_TOPIC"}},
		"group, nothing":         {without: []string{"group read"}, topics: everything, failed: []string{"ingest group twinegress Read: allow Read on the group: GROUP_AUTHORIZATION_FAILED"}},
		"group, Describe only":   {without: []string{"group read"}, more: []kfake.ACL{allow(group, "twinegress", describe)}, topics: everything, failed: []string{"ingest group twinegress Read: allow Read on the group: GROUP_AUTHORIZATION_FAILED"}},
		"letters, no Write":      {without: []string{"letters write"}, topics: everything, failed: []string{"dead letters topic letters Write: allow Write on the topic"}},
		"letters, no configs":    {without: []string{"letters configs"}, topics: everything, noted: []string{"dead letters topic letters DescribeConfigs: default size"}},
		"letters missing":        {without: []string{"letters write", "letters read", "letters configs"}, more: []kfake.ACL{allow(topic, "letters", describe)}, topics: []string{"in", "endpoints", "positions", "status"}, failed: []string{"dead letters topic letters Write: can't be created; create it, or allow Create on it: TOPIC_AUTHORIZATION_FAILED"}, noted: []string{"dead letters topic letters DescribeConfigs: not there yet", "replay topic letters Read: not there yet"}},
		"letters to be created":  {more: []kfake.ACL{allow(topic, "letters", create)}, topics: []string{"in", "endpoints", "positions", "status"}, noted: []string{"dead letters topic letters Write: run creates it", "dead letters topic letters DescribeConfigs: not there yet", "replay topic letters Read: not there yet"}},
		"no idempotent writes":   {without: []string{"idempotent", "letters write", "endpoints write", "positions write", "status write"}, topics: everything, failed: []string{"dead letters topic letters Write: allow Write"}, noted: []string{"dead letters cluster  IdempotentWrite: stored twice", "endpoints topic endpoints Write: not changed", "status topic status Write: knows itself only", "positions topic positions Write: it isn't committed"}},
		"endpoints, no Read":     {without: []string{"endpoints read"}, topics: everything, failed: []string{"endpoints topic endpoints Read: allow Read on the topic"}},
		"endpoints, no Write":    {without: []string{"endpoints write"}, topics: everything, noted: []string{"endpoints topic endpoints Write: not changed"}},
		"endpoints, no configs":  {without: []string{"endpoints configs"}, topics: everything, noted: []string{"endpoints topic endpoints DescribeConfigs: compacted"}},
		"endpoints, no writer":   {without: []string{"writer write"}, topics: everything, noted: []string{"endpoints transactional id endpoints-writer Write: not changed"}},
		"status, no Read":        {without: []string{"status read"}, topics: everything, noted: []string{"status topic status Read: knows itself only"}},
		"status missing":         {topics: everything[:4], noted: []string{"status topic status Read: not there yet", "status topic status Write: not there yet"}},
		"positions, no Write":    {without: []string{"positions write"}, topics: everything, noted: []string{"positions topic positions Write: it isn't committed"}},
		"positions missing":      {topics: []string{"in", "letters", "endpoints", "status"}, noted: []string{"positions topic positions Read: not there yet", "positions topic positions Write: not there yet"}},
		"groups, nothing":        {without: []string{"groups read", "groups delete"}, topics: everything, noted: []string{"positions group twinegress.* Read: catches up all the same: allow the prefix", "positions group twinegress.* Delete: stay in Kafka: allow the prefix"}},
		"groups, no Delete":      {without: []string{"groups delete"}, topics: everything, noted: []string{"positions group twinegress.* Delete: stay in Kafka: allow the prefix"}},
		"replay, no Read":        {without: []string{"letters read"}, topics: everything, noted: []string{"replay topic letters Read: there is no replay"}},
		"replay, no group":       {without: []string{"replay read"}, topics: everything, noted: []string{"replay group twinegress-replay Read: there is no replay of all", "replay group twinegress-replay-* Read: allow the prefix"}},
		"replay, one group only": {without: []string{"replay read"}, more: []kfake.ACL{allow(group, "twinegress-replay", read)}, topics: everything, noted: []string{"replay group twinegress-replay-* Read: allow the prefix"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			acls := tt.more
			for name, acl := range all {
				if !slices.Contains(tt.without, name) {
					acls = append(acls, acl)
				}
			}
			broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(),
				kfake.User("PLAIN", "app", "pass", acls...), kfake.Superuser("PLAIN", "admin", "admin"), kfake.SeedTopics(1, tt.topics...))
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			makeGroups(t, broker, "twinegress", "twinegress-replay", "twinegress-replay-check", "twinegress.check")
			wantRights(t, checkKafka(t.Context(), rightsConfig(broker, config.SASLPlain), zap.NewNop()), tt.failed, tt.noted)
		})
	}
}

// Brokers that don't say, and brokers without rights at all.
func TestRightsOfOtherBrokers(t *testing.T) {
	for name, tt := range map[string]struct {
		options []kfake.Opt
		noted   []string
	}{
		"no authorizer": {nil, nil},
		"Kafka 2.2": {[]kfake.Opt{kfake.MaxVersions(kversion.V2_2_0())}, []string{
			"ingest topic in Read: don't say", "ingest topic in DescribeConfigs: don't say", "dead letters topic letters Write: don't say",
			"dead letters topic letters DescribeConfigs: don't say", "endpoints topic endpoints Read: don't say",
			"endpoints topic endpoints Write: don't say", "endpoints topic endpoints DescribeConfigs: don't say",
			"status topic status Read: don't say", "status topic status Write: don't say", "positions topic positions Read: don't say", "positions topic positions Write: don't say", "positions group twinegress.* Delete: not known", "replay topic letters Read: don't say",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			broker, err := kfake.NewCluster(append(tt.options, kfake.NumBrokers(1), kfake.SeedTopics(1, "in", "letters", "endpoints", "positions", "status"))...)
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			wantRights(t, checkKafka(t.Context(), rightsConfig(broker, ""), zap.NewNop()), nil, tt.noted)
		})
	}
}

// Brokers that can't be reached are one trouble, not one for each right.
func TestRightsWithoutBrokers(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	cfg := rightsConfig(broker, "")
	broker.Close()
	cfg.Send.Timeout = 500 * time.Millisecond
	if results := checkKafka(t.Context(), cfg, zap.NewNop()); len(results) != 1 || results[0].OK || results[0].What != "kafka" {
		t.Errorf("%+v", results)
	}
}

// makeGroups makes groups: unlike Kafka, the embedded broker looks at the right
// to read a group only where there is one.
func makeGroups(t *testing.T, broker *kfake.Cluster, names ...string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.SASL(plain.Auth{User: "admin", Pass: "admin"}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, name := range names {
		offsets := make(kadm.Offsets)
		offsets.AddOffset("endpoints", 0, 0, -1)
		if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), name, offsets); err != nil {
			t.Fatal(err)
		}
	}
}

func rightsConfig(broker *kfake.Cluster, mechanism string) config.Config {
	cfg := config.Default()
	cfg.Ingest.Brokers, cfg.Ingest.Topics = broker.ListenAddrs(), []string{"in"}
	cfg.Ingest.SASL = config.SASL{Mechanism: mechanism, Username: "app", Password: "pass"}
	cfg.DeadLetter.Topic = "letters"
	cfg.Status.Topic, cfg.Positions.Topic = "status", "positions"
	cfg.Endpoints.Store, cfg.Endpoints.Topic = config.StoreKafka, "endpoints"
	return cfg
}

// wantRights compares what failed, and what is noted, with "user kind name
// operation: a part of the text".
func wantRights(t *testing.T, results []CheckResult, failed, noted []string) {
	t.Helper()
	compare := func(what string, text func(CheckResult) string, want []string) {
		t.Helper()
		n := 0
		for _, c := range results {
			if text(c) == "" {
				continue
			}
			n++
			row := strings.Join([]string{c.Name, c.Type, c.Path, c.Key}, " ") + ": "
			if !slices.ContainsFunc(want, func(w string) bool {
				part, ok := strings.CutPrefix(w, row)
				return ok && strings.Contains(text(c), part)
			}) {
				t.Errorf("%s: %s%s", what, row, text(c))
			}
		}
		if n != len(want) {
			t.Errorf("%s: %d, want %q", what, n, want)
		}
	}
	compare("failed", func(c CheckResult) string { return c.Error }, failed)
	compare("noted", func(c CheckResult) string { return c.Note }, noted)
	if n := len(results); n < 12 {
		t.Errorf("%d results", n)
	}
}
