package main

import (
	"fmt"
	"os"
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
		"run --log-level loud", "check --output xml", "endpoints nonesuch", "endpoints get",
		"emulate --partitions 0", "emulate --record -1",
		"bench nonesuch", "bench discard --payload 41", "bench discard --compression gzip", "bench discard --pairs 0",
		"bench discard --events 10", "bench discard --output yaml",
		"demo --fault nonesuch", "demo --rate -1", "demo --rate NaN", "demo --rate Inf", "demo --events -1", "demo --duration -1s",
		"demo --output xml",
	} {
		if _, code, err := (shell{t}).command("", strings.Fields(line)...); code != exitUsage {
			t.Errorf("%s: %v is no usage error", line, err)
		}
	}
}

// What a command prints, and its error says.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	broken := dir + "/broken.yaml"
	if err := os.WriteFile(broken, []byte("ingest: {topic: x}\nbatch: {maxEvents: -1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, tt := range map[string]struct {
		code int
		says []string
	}{
		"version":                            {0, []string{"twinegress"}},
		"version --output json":              {0, []string{`"go":`}},
		"version --output xml":               {exitUsage, []string{"text or json"}},
		"run --help":                         {0, []string{"Examples:", "--config"}},
		"run --nope":                         {exitUsage, []string{"--nope", "--help"}},
		"run now":                            {exitUsage, []string{"now"}},
		"run --config " + broken:             {exitUsage, []string{"ingest.topic", "batch.maxEvents"}},
		"run --config " + dir + "/none.yaml": {exitUsage, []string{"none.yaml"}},
		"run --set endpoints.file=" + dir + "/none.json": {exitFailed, []string{"none.json"}},
		"walk":          {exitUsage, []string{"unknown command", "twinegress --help"}},
		"chekc":         {exitUsage, []string{"did you mean twinegress check?"}},
		"endpoints lst": {exitUsage, []string{"did you mean twinegress endpoints list?"}},
		"run --confg x": {exitUsage, []string{"did you mean --config?"}},
		"--version":     {0, []string{"twinegress " + version}},
	} {
		t.Run(line, func(t *testing.T) {
			out, code, err := shell{t}.command("", strings.Fields(line)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d: %v", code, tt.code, err)
			}
			for _, s := range tt.says {
				if text := fmt.Sprint(out, err); !strings.Contains(text, s) {
					t.Errorf("it doesn't say %q:\n%s", s, text)
				}
			}
		})
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
		args := append([]string{cobra.ShellCompRequestCmd}, append(strings.Fields(line), "")...)
		if out := (shell{t}).ok("", args...); !strings.Contains(out, want+"\n") {
			t.Errorf("%s: %q", line, out)
		}
	}
}

// A configuration file in the working directory is read, and that is said.
func TestConfigurationIsFound(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("twinegress.yaml", []byte("send: {attempts: 0}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, code := shell{t}.all("", "check")
	if code != exitUsage || !strings.Contains(all, "the configuration is ./twinegress.yaml, since --config names none\n") || !strings.Contains(all, "send.attempts: ") {
		t.Errorf("%d %s", code, all)
	}
	if err := os.WriteFile("other.yaml", []byte("batch: {maxEvents: 0}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for args, says := range map[string]string{
		"check --config none.yaml": here + "/none.yaml: the configuration file can't be read",
		"run --config other.yaml --set batch.maxEvents=1 --set endpoints.file=none.json": "endpoints file " + here + "/none.json does not exist",
	} {
		if all, _ := (shell{t}).all("", strings.Fields(args)...); !strings.Contains(all, says) {
			t.Errorf("%s doesn't say which path was tried: %s", args, all)
		}
	}
	if all, _ := (shell{t}).all("", "check", "--config", "other.yaml"); strings.Contains(all, "send.attempts") || strings.Contains(all, "names none") {
		t.Errorf("a file that is named: %s", all)
	}
}
