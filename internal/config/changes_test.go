package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestChanges(t *testing.T) {
	if c := Default().Changes(); len(c) > 0 {
		t.Errorf("the default differs from itself: %v", c)
	}
	cfg, err := Load(Sources{
		Environ: []string{
			"TWINEGRESS_INGEST_SASL_MECHANISM=PLAIN", "TWINEGRESS_INGEST_SASL_USERNAME=me", "TWINEGRESS_INGEST_SASL_PASSWORD=hush-hush",
			`TWINEGRESS_API_TOKENS=[{"name":"ops","sha256":"` + strings.Repeat("ab", 32) + `","role":"write","events":true}]`,
		},
		Overrides: map[string]string{"ingest.brokers": "a:1,b:2", "batch.linger": "7ms", "ingest.maxInFlightBytes": "1MiB", "batch.maxEvents": "2000"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cfg.Changes())
	want := "[{ingest.brokers a:1,b:2} {ingest.sasl.mechanism PLAIN} {ingest.sasl.username me} {ingest.sasl.password ***} " +
		"{ingest.maxInFlightBytes 1MiB} {api.tokens ops:write+events} {batch.linger 7ms}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// Whatever key there is, it has a value that says something, and none has a secret.
	for _, k := range keys {
		if k.secret() && !strings.Contains(got, "***") || strings.Contains(got, "hush") || strings.Contains(got, "abab") {
			t.Errorf("%s shows a secret", k.path)
		}
	}
}
