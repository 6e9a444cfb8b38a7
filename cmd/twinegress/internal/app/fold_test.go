package app

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/server/api"
)

func TestFold(t *testing.T) {
	endpoint := endpoints.Endpoint{ID: "a", Type: endpoints.TypeEventGrid, Path: "h"}
	other := endpoint
	other.ID = "b"
	tests := map[string]struct {
		say  func(log *zap.Logger, i int) // 0, 1, 2, one after the other
		want int                          // lines at once
	}{
		"the same":          {func(l *zap.Logger, _ int) { l.Warn("m", zap.String("broker", "1"), zap.Error(errors.New("e"))) }, 1},
		"another message":   {func(l *zap.Logger, i int) { l.Warn(fmt.Sprint("m", i)) }, 3},
		"another level":     {func(l *zap.Logger, i int) { l.Log(zap.InfoLevel+zapcore.Level(i), "m") }, 3},
		"another logger":    {func(l *zap.Logger, i int) { l.Named(fmt.Sprint(i)).Warn("m") }, 3},
		"another broker":    {func(l *zap.Logger, i int) { l.Warn("m", zap.String("broker", fmt.Sprint(i))) }, 3},
		"another partition": {func(l *zap.Logger, i int) { l.Warn("m", zap.Int("partition", i)) }, 3},
		"another error":     {func(l *zap.Logger, i int) { l.Warn("m", zap.Error(fmt.Errorf("e%c of x", 'a'+i))) }, 3},
		"another port":      {func(l *zap.Logger, i int) { l.Warn("m", zap.Error(fmt.Errorf("read tcp 127.0.0.1:%d: reset", 5000+i))) }, 1},
		"another port, exactly": {func(l *zap.Logger, i int) {
			l.Error("m", zap.Error(fmt.Errorf("read tcp 127.0.0.1:%d: reset", 5000+i)))
		}, 3},
		"another time": {func(l *zap.Logger, i int) {
			l.Error("m", zap.Time("until", time.Now()), zap.Duration("took", time.Duration(i)))
		}, 1},
		"one endpoint": {func(l *zap.Logger, i int) { l.WithLazy(endpoint.LogName()).Warn("m", zap.Time("until", time.Now())) }, 1},
		"two endpoints": {func(l *zap.Logger, i int) {
			e := endpoint
			if i > 0 {
				e = other
			}
			l.WithLazy(e.LogName()).Warn("m")
		}, 2},
		"audit": {func(l *zap.Logger, _ int) { l.Named("api").Named(api.AuditLog).Info("m") }, 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.DebugLevel)
				log := zap.New(folding(core))
				for i := range 3 {
					test.say(log, i)
					time.Sleep(time.Second)
				}
				if logs.Len() != test.want {
					t.Errorf("%d lines, want %d", logs.Len(), test.want)
				}
				time.Sleep(foldWindow)
				synctest.Wait()
				repeated := int64(0)
				for _, l := range logs.All() {
					n, _ := l.ContextMap()["repeated"].(int64)
					repeated += n
				}
				if repeated != int64(3-test.want) {
					t.Errorf("%d repeats are told of, want %d", repeated, 3-test.want)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				before := logs.Len()
				test.say(log, 0)
				if logs.Len() != before+1 {
					t.Error("a line that comes again much later isn't written")
				}
				_ = log.Sync()
			})
		})
	}
}

// However often a line comes, it is written once in a window, and each time it is
// told how often.
func TestFoldOfAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		log := zap.New(folding(core))
		const n = 1001
		for range n { // for 20 s
			log.Warn("unable to open connection to broker")
			time.Sleep(20 * time.Millisecond)
		}
		_ = log.Sync()
		sum, last := int64(0), time.Time{}
		for i, l := range logs.All() {
			repeated, _ := l.ContextMap()["repeated"].(int64)
			sum += max(repeated, 1)
			if gap := l.Time.Sub(last); gap < foldWindow-40*time.Millisecond && i < logs.Len()-1 {
				t.Errorf("a line after %v", gap)
			}
			last = l.Time
		}
		if sum != n || logs.Len() > 6 {
			t.Errorf("%d lines tell of %d, want %d", logs.Len(), sum, n)
		}
	})
}

// What is remembered is bounded. Beyond it every line is written.
func TestFoldIsBounded(t *testing.T) {
	for _, n := range []int{maxFolds - 1, maxFolds, maxFolds + 1} {
		core, logs := observer.New(zap.DebugLevel)
		f := folding(core)
		log := zap.New(f)
		for i := range 2 * n {
			log.Warn(fmt.Sprint("m", i%n))
		}
		if want := n + max(0, n-maxFolds); logs.Len() != want {
			t.Errorf("%d lines of %d twice, want %d", logs.Len(), n, want)
		}
		_ = log.Sync()
		if left := len(f.(fold).folds.all); left > 0 {
			t.Errorf("%d lines are remembered after Sync", left)
		}
	}
}
