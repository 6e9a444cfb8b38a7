package config

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestParseByteSize(t *testing.T) {
	for in, want := range map[string]ByteSize{
		"0": 0, "1": 1, "1B": 1, "1KB": 1000, "1KiB": 1024, "64MiB": 64 << 20, "1mb": 1e6, "2 GiB": 2 << 30,
		"1TB": 1e12, "1TiB": 1 << 40, "1.5GiB": 3 << 29, " 7 ": 7, "9223372036854775807": math.MaxInt64, "8388607TiB": 8388607 << 40,
	} {
		if got, err := ParseByteSize(in); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "MiB", "B", "-1", "-1MiB", "1M", "1 MiB x", "1e9", "0x10", "Inf", "NaN", "1.2.3", "1,5MB", "+1.5MB",
		"9223372036854775808", "8388608TiB", "9999999.5TiB", "64MiBB",
	} {
		if got, err := ParseByteSize(in); err == nil {
			t.Errorf("%q is %d, want an error", in, got)
		}
	}
	for b, want := range map[ByteSize]string{0: "0", 1: "1", 1023: "1023", 1024: "1KiB", 64 << 20: "64MiB", 1e6: "1MB", 3 << 29: "1536MiB"} {
		if got := b.String(); got != want {
			t.Errorf("%d prints as %s, want %s", int64(b), got, want)
		}
		if back, err := ParseByteSize(want); err != nil || back != b {
			t.Errorf("%s reads as %d, %v; want %d", want, back, err, b)
		}
	}
}

func TestSecretNeverPrints(t *testing.T) {
	cfg := Default()
	cfg.Ingest.SASL.Password = "hunter2SECRET"
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&b, verb, cfg)
		fmt.Fprintf(&b, verb, &cfg)
		fmt.Fprintf(&b, verb, cfg.Ingest.SASL.Password)
	}
	j, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(j)
	buf, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).
		EncodeEntry(zapcore.Entry{}, []zap.Field{zap.Any("a", cfg), zap.Any("b", cfg.Ingest.SASL.Password)})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(buf.Bytes())
	if got := b.String(); strings.Contains(got, "SECRET") || strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", "SECRET")) {
		t.Errorf("the password shows: %s", got)
	}
	if !strings.Contains(string(j), `"Password":"***"`) {
		t.Errorf("JSON doesn't say that there is a password: %s", j)
	}
	if p := cfg.Ingest.SASL.Password.Reveal(); p != "hunter2SECRET" {
		t.Errorf("revealed %q", p)
	}
	if s := Secret(""); s.String() != "" {
		t.Errorf("no secret prints as %q", s.String())
	}
}
