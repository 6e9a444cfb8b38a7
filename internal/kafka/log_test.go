package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A batch that takes too much memory is no line of the client: it would say that the
// partition isn't read any more, and how a program moves on.
func TestClientLog(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "twins"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	core, lines := observer.New(zapcore.DebugLevel)
	client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.WithLogger(Logger(zap.New(core))),
		kgo.DefaultProduceTopic("twins"), kgo.ConsumeTopics("twins"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MaxDecompressBatchBytes(1000))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := client.ProduceSync(ctx, kgo.SliceRecord(make([]byte, 100_000))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := client.PollFetches(ctx).Err(); !errors.Is(err, kgo.ErrMaxDecompress) {
		t.Fatalf("polled: %v", err)
	}
	if n := lines.Len(); n > 0 {
		t.Errorf("%d lines, the first one is %q", n, lines.All()[0].Message)
	}
	Logger(zap.New(core)).Log(kgo.LogLevelWarn, "unable to commit offset for topic partition")
	if n := lines.Len(); n > 0 {
		t.Errorf("a commit that is refused: %d lines", n)
	}
	Logger(zap.New(core)).Log(kgo.LogLevelError, "another")
	if lines.FilterMessage("another").Len() != 1 {
		t.Error("other lines are left out, too")
	}
}
