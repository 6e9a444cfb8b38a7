package app

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/kafka"
	"twinegress/pipeline/letters"
	"twinegress/pipeline/replay"
)

// NewReplay builds a replay of the configured dead-letter topic. o has what the
// configuration doesn't say: the endpoints, the log, and what is replayed. What earlier
// replays are done with is skipped, unless again says since when it is to be sent once
// more.
func NewReplay(ctx context.Context, cfg config.Config, again time.Time, o replay.Options) (*replay.Replay, error) {
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
	from.Group = replay.Group(cfg.Ingest.Group, o.Selection, again)
	from.InstanceID = "" // it belongs to a copy of `run`
	if o.Source, err = replay.OpenBacklog(ctx, from, o.Selection.Since, o.Selection.Until, connect, o.Log); err != nil {
		return nil, fmt.Errorf("dead-letter topic (deadLetter.topic): %w", err)
	}
	if again.IsZero() {
		o.Earlier = earlierReplays(ctx, cfg, o)
	}
	o.Sender, o.Limits, o.ShutdownTimeout = senderOptions(cfg), recordLimits(cfg.Ingest.Limits), cfg.Shutdown.Timeout
	return replay.New(o), nil
}

// earlierReplays returns the replays before this one, or none where the brokers don't
// say: then letters may be sent twice, and that is logged.
func earlierReplays(ctx context.Context, cfg config.Config, o replay.Options) []replay.Earlier {
	connect, err := kafka.Connect(cfg.Ingest, o.Log)
	if err == nil {
		var found []replay.Earlier
		if found, err = replay.FindEarlier(ctx, cfg.Ingest.Group, cfg.DeadLetter.Topic, o.Selection, connect); err == nil {
			return found
		}
	}
	o.Log.Warn("it is not known what was replayed before: letters may be sent once more", zap.Error(err))
	return nil
}

// PreviewReplay counts what a replay would do, and does nothing.
func PreviewReplay(ctx context.Context, cfg config.Config, again time.Time, o replay.Options) (replay.Preview, error) {
	reader, err := NewLetters(cfg, o.Log)
	if err != nil {
		return replay.Preview{}, err
	}
	if again.IsZero() {
		o.Earlier = earlierReplays(ctx, cfg, o)
	}
	o.Sender, o.Limits = senderOptions(cfg), recordLimits(cfg.Ingest.Limits)
	return replay.New(o).Preview(ctx, reader)
}

// NewLetters returns a reader of the configured dead-letter topic.
func NewLetters(cfg config.Config, log *zap.Logger) (*letters.Reader, error) {
	connect, err := kafka.Connect(cfg.Ingest, log)
	if err != nil {
		return nil, err
	}
	return &letters.Reader{Topic: cfg.DeadLetter.Topic, BatchBytes: int64(cfg.Ingest.Limits.BatchBytes), Connect: connect}, nil
}
