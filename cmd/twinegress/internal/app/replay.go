package app

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/kafka"
	"twinegress/pipeline/replay"
)

// ReplayOptions select dead letters and the endpoints that they are sent to.
type ReplayOptions struct {
	Config    config.Config
	Endpoints []endpoints.Endpoint
	Only      string    // the id of the one endpoint to send to; "" is all
	Since     time.Time // letters that were set aside before are skipped
	Progress  func(replay.Progress)
	Log       *zap.Logger
}

// NewReplay builds a replay of the configured dead-letter topic.
func NewReplay(ctx context.Context, o ReplayOptions) (*replay.Replay, error) {
	open, err := Openers(o.Config)
	if err != nil {
		return nil, err
	}
	connect, err := kafka.Connect(o.Config.Ingest, o.Log)
	if err != nil {
		return nil, err
	}
	from := o.Config.Ingest
	from.Topics = []string{o.Config.DeadLetter.Topic}
	from.Group = replay.Group(o.Config.Ingest.Group, o.Only, o.Since)
	from.InstanceID = "" // it belongs to a copy of `run`
	source, err := replay.OpenBacklog(ctx, from, o.Since, connect, o.Log)
	if err != nil {
		return nil, fmt.Errorf("dead-letter topic (deadLetter.topic): %w", err)
	}
	return replay.New(replay.Options{
		Source: source, Endpoints: o.Endpoints, Only: o.Only, Open: open, Sender: senderOptions(o.Config),
		ShutdownTimeout: o.Config.Shutdown.Timeout, Progress: o.Progress, Log: o.Log,
	}), nil
}
