package app

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"twinegress/internal/config"
)

// What is in force is one line.
func TestLogConfig(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(LogOptions{Level: "info", Format: "json"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Batch.Linger, cfg.Ingest.SASL.Password = time.Second, "hush-hush"
	LogConfig(log, cfg, "", "v1")
	LogConfig(log, config.Default(), "/etc/t.yaml", "v1")
	var lines []map[string]any
	for d := json.NewDecoder(&out); d.More(); {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if len(lines) != 2 || lines[0]["file"] != "none" || lines[1]["file"] != "/etc/t.yaml" || len(lines[1]["changed"].(map[string]any)) > 0 {
		t.Fatalf("logged %v", lines)
	}
	changed := lines[0]["changed"].(map[string]any)
	if len(changed) != 2 || changed["batch.linger"] != "1s" || changed["ingest.sasl.password"] != "***" {
		t.Errorf("changed is %v", changed)
	}
	if l := lines[0]; l["version"] != "v1" || l["pid"] != float64(os.Getpid()) || l["cores"] == nil {
		t.Errorf("the line is %v", l)
	}
}

// The format is JSON where nobody looks at it, and text by request. A level or a
// format that there isn't is a mistake of the command line.
func TestLogFormat(t *testing.T) {
	for format, begins := range map[string]string{"": `{"level":"warn"`, "json": `{"level":"warn"`, "text": "20"} {
		var out bytes.Buffer
		log, err := NewLogger(LogOptions{Level: "warn", Format: format}, &out)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("not this")
		log.Warn("this")
		if !strings.HasPrefix(out.String(), begins) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%q: %q", format, out.String())
		}
	}
	for _, o := range []LogOptions{{Level: "loud"}, {Level: "info", Format: "xml"}} {
		if _, err := NewLogger(o, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "must be") {
			t.Errorf("%v: %v", o, err)
		}
	}
}
