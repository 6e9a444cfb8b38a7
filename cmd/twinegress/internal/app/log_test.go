package app

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/server/api"
)

// Audit lines are logged at every level.
func TestAuditIsLoggedAtEachLevel(t *testing.T) {
	for _, level := range []string{"info", "warn", "error"} {
		core, logs := observer.New(zap.InfoLevel)
		at, err := zap.ParseAtomicLevel(level)
		if err != nil {
			t.Fatal(err)
		}
		log := zap.New(leveled{core, at.Level()}).With(zap.Int("x", 1))
		log.Info("started")
		log.Error("failed")
		log.Named("api").Named(api.AuditLog).With(zap.Int("y", 2)).Info("changed")
		want := 2
		if level == "info" {
			want = 3
		}
		if got := logs.FilterMessage("changed").All(); logs.Len() != want || len(got) != 1 || len(got[0].Context) != 2 {
			t.Errorf("%s: %v, want %d lines, one of them %q with both fields", level, logs.All(), want, "changed")
		}
	}
}
