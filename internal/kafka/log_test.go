package kafka

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
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

// While a broker can't be connected to it is said once, and then rarely; a later outage
// and another broker are said anew. What the group's hook says isn't said twice.
func TestClientLogInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, lines := observer.New(zapcore.DebugLevel)
		log := Logger(zap.New(core))
		fails := func(addr string, every time.Duration, times, want int) {
			t.Helper()
			before := lines.Len()
			for range times {
				log.Log(kgo.LogLevelWarn, "unable to open connection to broker", "addr", addr, "broker", "1", "err", errors.New("refused"))
				time.Sleep(every)
			}
			if n := lines.Len() - before; n != want {
				t.Errorf("%s, %d times every %v: %d lines, want %d", addr, times, every, n, want)
			}
		}
		fails("a:1", time.Second, 599, 1)
		fails("a:1", time.Second, 2, 1)
		fails("b:1", time.Second, 2, 1)
		time.Sleep(dialPause)
		fails("a:1", time.Second, 2, 1)
		fails("a:1", dialPause+time.Millisecond, 2, 1)
		fails("a:1", time.Second, 1, 1)
		before := lines.Len()
		for i := range 3 * maxDials {
			log.Log(kgo.LogLevelWarn, "unable to open connection to broker", "addr", fmt.Sprint("c:", i))
		}
		if n := lines.Len() - before; n != 3*maxDials || len(log.(*clientLog).dials) > maxDials {
			t.Errorf("%d lines of as many brokers, %d are remembered", n, len(log.(*clientLog).dials))
		}
		before = lines.Len()
		log.Log(kgo.LogLevelError, "group manage loop errored", "group", "g", "err", kerr.IllegalGeneration)
		log.Log(kgo.LogLevelWarn, "join group failed", "group", "g", "err", kerr.UnknownMemberID)
		if n := lines.Len() - before; n != 0 {
			t.Errorf("%d lines of the group", n)
		}
	})
}
