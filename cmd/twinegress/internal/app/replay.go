package app

import (
	"context"
	"fmt"
	"time"

	"twinegress/internal/config"
	"twinegress/internal/kafka"
	"twinegress/pipeline/replay"
)

// NewReplay builds a replay of the configured dead-letter topic. o has what the
// configuration doesn't say: the endpoints, the log, and what is replayed. Letters
// that were set aside before since are skipped.
func NewReplay(ctx context.Context, cfg config.Config, since time.Time, o replay.Options) (*replay.Replay, error) {
	var err error
	if o.Open, err = Openers(cfg, o.Log); err != nil {
		return nil, err
	}
	connect, err := kafka.Connect(cfg.Ingest, o.Log)
	if err != nil {
		return nil, err
	}
	from := cfg.Ingest
	from.Topics = []string{cfg.DeadLetter.Topic}
	from.Group = replay.Group(cfg.Ingest.Group, o.Only, since)
	from.InstanceID = "" // it belongs to a copy of `run`
	if o.Source, err = replay.OpenBacklog(ctx, from, since, connect, o.Log); err != nil {
		return nil, fmt.Errorf("dead-letter topic (deadLetter.topic): %w", err)
	}
	o.Sender, o.Limits, o.ShutdownTimeout = senderOptions(cfg), recordLimits(cfg.Ingest.Limits), cfg.Shutdown.Timeout
	return replay.New(o), nil
}
