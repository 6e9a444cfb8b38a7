package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/e2e/env"
	"twinegress/pipeline/letters"
)

// What was set aside is looked at from a shell: without a group, and escaped.
func TestDeadLettersCommands(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 1})
	h.SetEndpoints(h.Hub("SensorChange"))
	const hub = "568fd394-380b-46fa-925a-ebb96f658cce"
	var flags []string
	for key, value := range h.Settings(nil) {
		flags = append(flags, "--set", key+"="+value)
	}
	run := func(args ...string) (string, int, error) {
		t.Helper()
		out, code, err := shell{t}.command("", append(append([]string{"deadletters"}, args...), flags...)...)
		return out, code, err
	}
	if _, code, err := run("list"); code != exitFailed || !strings.Contains(err.Error(), "the topic "+h.DeadLetters+" does not exist") {
		t.Errorf("without the topic: exit code %d, %v", code, err)
	}
	if _, err := h.Admin.CreateTopic(t.Context(), 2, 1, nil, h.DeadLetters); err != nil {
		t.Fatal(err)
	}
	letter := func(offset int, value string, more ...string) {
		h.Produce(&kgo.Record{Topic: h.DeadLetters, Value: []byte(value), Headers: env.Headers(append(append([]string{
			"reason", "rejected", "detail", "400: \x1b[31mno", "topic", "twins", "partition", "7", "offset", fmt.Sprint(offset),
		}, more...), "time", "2026-05-01T08:00:00Z")...)})
	}
	letter(1, `{"a":1}`, "endpoint", hub, "endpointName", "the hub", "endpointTarget", "EventHub ns/changes")
	letter(2, "\x1b[31m\xff", "index", "3", "endpoint", hub)
	letter(2, "[]", "index", "4")

	for _, tt := range []struct {
		args  []string
		code  int
		wants string // a pattern
	}{
		{[]string{"list"}, 0, `(?s)^STORED .*\n\S+Z +\d+/\d+ +rejected +(the hub +EventHub ns/changes|` + hub + ` +-|- +-) +twins/7/\d(/\d)? +\d +400: \\u001b\[31mno\n`},
		{[]string{"list", "--endpoint", hub, "--limit", "1"}, 0, `there may be older ones: --limit, --until\n$`},
		{[]string{"list", "--reason", "backoff"}, 0, `^no dead letters\n$`},
		{[]string{"list", "--until", "1h"}, 0, `^no dead letters\n$`},
		{[]string{"count"}, 0, `(?s)^LETTERS +REASON.*\n2 +rejected +(the hub|` + hub + `).*\n1 +rejected +- .*\n3 +in all +\d+\n$`},
		{[]string{"show", "twins/7/1"}, 0, `(?s)reason +rejected\n.*name +the hub\n.*\n\{\n  "a": 1\n\}\n$`},
		{[]string{"show", "twins/7/2/3"}, 0, `(?s)event +twins/7/2/3\n.*\n\\u001b\[31m\\ufffd\n$`},
		{[]string{"show", "twins/7/2"}, 0, `(?s)^STORED.*twins/7/2/[34] .*twins/7/2/[34] `},
		{[]string{"show", "twins/7/9"}, exitFailed, `no dead letter is of the event twins/7/9`},
		{[]string{"show", "0/99999"}, exitFailed, `there is no dead letter: partition 0 of .* has the offsets from 0 to before`},
		{[]string{"show", "99/0"}, exitFailed, `no partition 99`},
		{[]string{"show", "twins"}, exitUsage, `must be PARTITION/OFFSET`},
		{[]string{"show", "twins/1/x"}, exitUsage, `must be PARTITION/OFFSET`},
		{[]string{"show", "/1/1"}, exitUsage, `must be PARTITION/OFFSET`},
		{[]string{"show", "1/2/3/4/5"}, exitUsage, `must be PARTITION/OFFSET`},
		{[]string{"show"}, exitUsage, `0 places given`},
		{[]string{"show", "0/0", "--raw", "--output", "json"}, exitUsage, `give one of them`},
		{[]string{"list", "--limit", "0"}, exitUsage, `from 1 to 1000`},
		{[]string{"list", "--limit", "1001"}, exitUsage, `from 1 to 1000`},
		{[]string{"list", "--reason", "bad"}, exitUsage, `must be one of undecodable, `},
		{[]string{"list", "--endpoint", "nope"}, exitUsage, `there are: `},
		{[]string{"list", "--since", "1h", "--until", "2h"}, exitUsage, `must be after --since`},
		{[]string{"count", "--until", "soon"}, exitUsage, `--until soon: must be a time`},
	} {
		out, code, err := run(tt.args...)
		if err != nil {
			out = err.Error()
		}
		if code != tt.code || !regexp.MustCompile(tt.wants).MatchString(out) {
			t.Errorf("%v: exit code %d, want %d and %q:\n%s", tt.args, code, tt.code, tt.wants, out)
		}
	}
	if out, _, err := run("show", "twins/7/2/3", "--raw"); err != nil || out != "\x1b[31m\xff" {
		t.Errorf("--raw: %q, %v", out, err)
	}
	out, _, err := run("list", "--output", "json")
	var list letters.List
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list.Letters) != 3 {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
}
