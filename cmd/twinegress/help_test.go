package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command's help has an example, short lines and no accidental value names.
func TestHelp(t *testing.T) {
	commands := 0
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		for _, below := range c.Commands() {
			look(below)
		}
		if c.Hidden {
			return
		}
		commands++
		if !strings.Contains(c.Example, "  twinegress") {
			t.Errorf("%s: no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 120 {
				t.Errorf("%s: a line of %d characters: %s", c.CommandPath(), n, line)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			// pflag reads a word in back quotes in a flag's usage as the name of its value.
			if name, _ := pflag.UnquoteUsage(f); strings.Contains(f.Usage, "`") && name != strings.ToUpper(name) {
				t.Errorf("%s: --%s has a value %q", c.CommandPath(), f.Name, name)
			}
		})
	}
	look(rootCommand())
	if commands < 14 {
		t.Errorf("%d commands", commands)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, line := range []string{
		"nonesuch", "run extra", "run --nonesuch", "run --log-level loud", "check --output xml", "endpoints nonesuch", "endpoints get",
		"emulate --partitions 0", "emulate --record -1",
		"bench nonesuch", "bench discard --payload 41", "bench discard --compression gzip", "bench discard --pairs 0",
		"bench discard --events 10", "bench discard --output yaml",
		"demo --fault nonesuch", "demo --rate -1", "demo --rate NaN", "demo --rate Inf", "demo --events -1", "demo --duration -1s",
		"demo --output xml",
	} {
		root := rootCommand()
		root.SetArgs(strings.Fields(line))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		err := root.ExecuteContext(t.Context())
		if _, ok := errors.AsType[usageError](err); err == nil || !ok && !isCobraUsage(err) {
			t.Errorf("%s: %v is no usage error", line, err)
		}
	}
}

// The shell completes flag values and arguments.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"demo --fault":           "unreachable",
		"run --log-level":        "debug",
		"replay --log-level":     "debug",
		"bench":                  "eventhubs\tone event hub of 8 partitions",
		"bench --payload":        "twins",
		"bench --compression":    "zstd",
		"check --output":         "json",
		"endpoints list --types": "ServiceBus",
	} {
		root, out := rootCommand(), new(strings.Builder)
		root.SetArgs(append([]string{cobra.ShellCompRequestCmd}, append(strings.Fields(line), "")...))
		root.SetOut(out)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), want+"\n") {
			t.Errorf("%s: %v, %q", line, err, out)
		}
	}
}
