package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/kafka"
	"twinegress/internal/untrusted"
	"twinegress/pipeline/letters"
	"twinegress/pipeline/replay"
)

// right is something that Kafka's user must be allowed to do. docs/operations.md
// lists them for those who grant them.
type right struct {
	user      string // what needs it
	kind      string // of the resource
	name      string
	operation string
	try       func(context.Context) error
	// without says what follows if it isn't there; empty: `run` doesn't work.
	without string
}

// checkKafka connects to the brokers, and tries each right.
func checkKafka(ctx context.Context, cfg config.Config, log *zap.Logger) []CheckResult {
	result := CheckResult{What: "kafka", Path: strings.Join(cfg.Ingest.Brokers, ",")}
	connect, err := kafka.Connect(cfg.Ingest, log)
	if err != nil {
		return []CheckResult{result.with(err)}
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Send.Timeout)
	defer cancel()
	topics := append([]string{cfg.DeadLetter.Topic}, cfg.Ingest.Topics...)
	if cfg.Endpoints.Store == config.StoreKafka {
		topics = append(topics, cfg.Endpoints.Topic)
	}
	if cfg.Status.Topic != "" {
		topics = append(topics, cfg.Status.Topic)
	}
	if cfg.Positions.Topic != "" {
		topics = append(topics, cfg.Positions.Topic)
	}
	rights, err := kafka.OpenRights(ctx, connect, topics...)
	if err != nil {
		return []CheckResult{result.with(err)}
	}
	defer rights.Close()
	results := []CheckResult{result.with(nil)}
	for _, r := range needed(cfg, rights) {
		results = append(results, r.check(ctx, rights))
	}
	return results
}

// needed returns the rights that `run` and `replay` need with a configuration.
func needed(cfg config.Config, rights *kafka.Rights) (all []right) {
	topic := func(user, name, operation, without string) right {
		try := func(context.Context) error { return rights.Topic(name, kafka.Operation(operation)) }
		return right{user, "topic", name, operation, try, without}
	}
	group := func(user, name, tried, without string) right {
		try := func(ctx context.Context) error { return rights.Group(ctx, tried) }
		return right{user, "group", name, "Read", try, without}
	}
	const size = "the topic is taken to allow records of the default size"
	for _, name := range cfg.Ingest.Topics {
		all = append(all, topic("ingest", name, "Read", ""), topic("ingest", name, "DescribeConfigs", size))
	}
	all = append(all, group("ingest", cfg.Ingest.Group, cfg.Ingest.Group, ""))

	deadLetters := cfg.DeadLetter.Topic
	all = append(all,
		topic("dead letters", deadLetters, "Write", ""),
		topic("dead letters", deadLetters, "DescribeConfigs", size),
		right{
			"dead letters", "cluster", "", "IdempotentWrite", rights.IdempotentWrite,
			"a dead letter may be stored twice when a connection breaks (since Kafka 3.0 Write on a topic is enough)",
		})

	if cfg.Endpoints.Store == config.StoreKafka {
		const without = "endpoints can be followed, not changed"
		writer := cfg.Endpoints.Topic + "-writer"
		all = append(all,
			topic("endpoints", cfg.Endpoints.Topic, "Read", ""),
			topic("endpoints", cfg.Endpoints.Topic, "Write", without),
			topic("endpoints", cfg.Endpoints.Topic, "DescribeConfigs", "nobody sees whether the topic is compacted"),
			right{
				"endpoints", "transactional id", writer, "Write",
				func(ctx context.Context) error { return rights.Transaction(ctx, writer) }, without,
			})
	}

	if name := cfg.Status.Topic; name != "" {
		const without = "each copy knows itself only"
		all = append(all, topic("status", name, "Read", without), topic("status", name, "Write", without))
	}
	if name := cfg.Positions.Topic; name != "" {
		const without = "where more than some 140 endpoints are behind in a partition, it isn't committed"
		all = append(all, topic("positions", name, "Read", without), topic("positions", name, "Write", without))
	}
	if cfg.Positions.Groups {
		prefix := cfg.Ingest.Group + "."
		all = append(all,
			group("positions", prefix+"*", prefix+"check", "Kafka's tools don't see the backlog of an endpoint that is behind, which catches up all the same: allow the prefix, or set positions.groups to false"),
			right{
				"positions", "group", prefix + "*", "Delete",
				func(ctx context.Context) error { return rights.GroupDelete(ctx, prefix+"check") },
				"groups of endpoints that are not behind any more stay in Kafka: allow the prefix",
			})
	}
	every := replay.Group(cfg.Ingest.Group, letters.Selection{}, time.Time{})
	return append(all,
		topic("replay", deadLetters, "Read", "there is no replay"),
		group("replay", every, every, "there is no replay of all letters"),
		group("replay", every+"-*", every+"-check", "there is no replay of one endpoint or since a time: allow the prefix"))
}

func (r right) check(ctx context.Context, rights *kafka.Rights) CheckResult {
	result := CheckResult{What: "right", Name: r.user, Type: r.kind, Path: r.name, Key: r.operation}
	err := r.try(ctx)
	missing := kafka.IsMissing(err) && r.user != "ingest" // that one nobody creates
	switch {
	case err == nil:
	case missing && r.without == "":
		if err = rights.CreateTopic(ctx, r.name); err != nil {
			err = fmt.Errorf("the topic is not there and can't be created; create it, or allow Create on it: %w", err)
		} else {
			result.Note = "the topic is not there yet: run creates it"
		}
	case missing:
		result.Note, err = "the topic is not there yet", nil
	case errors.Is(err, kafka.ErrNotSaid):
		result.Note, err = "not known: "+err.Error(), nil
	case kafka.IsRefused(err) && r.without == "":
		err = fmt.Errorf("allow %s on the %s: %w", r.operation, r.kind, err)
	case kafka.IsRefused(err):
		result.Note, err = "not allowed: "+r.without, nil
	case r.without != "":
		result.Note, err = "not known: "+untrusted.Text(err.Error()), nil
	}
	return result.with(err)
}
