package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/config"
)

// documents returns all Markdown files of the project by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	docs := make(map[string]string)
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/*/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			docs[f] = string(b)
		}
	}
	if len(docs) < 5 {
		t.Fatalf("only %d documents", len(docs))
	}
	return docs
}

var fence = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// Every command in a document exists: make's targets, our commands and flags.
func TestCommandsInDocuments(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for name, text := range documents(t) {
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			if block[1] != "sh" {
				continue
			}
			for line := range strings.Lines(block[2]) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
				words := strings.Fields(line)
				if len(words) < 2 {
					continue
				}
				switch filepath.Base(words[0]) {
				case "make":
					commands++
					if !regexp.MustCompile(`(?m)^` + words[1] + `:`).Match(makefile) {
						t.Errorf("%s: %q: the Makefile has no such target", name, line)
					}
				case "twinegress":
					commands++
					cmd, args, err := rootCommand().Find(words[1:])
					if err == nil {
						err = cmd.ParseFlags(args)
					}
					if err != nil || !strings.HasPrefix(cmd.CommandPath()+" ", "twinegress "+words[1]+" ") {
						t.Errorf("%s: %q: %v", name, line, err)
					}
				}
			}
		}
	}
	if commands < 4 {
		t.Errorf("only %d commands were found: the test looks in the wrong way", commands)
	}
}

// Each defence of docs/security.md has a test that there is.
func TestDefencesHaveTests(t *testing.T) {
	there := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range function.FindAllStringSubmatch(string(b), -1) {
			there[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	_, defences, _ := strings.Cut(documents(t)["../../docs/security.md"], "## Defences")
	defences, _, _ = strings.Cut(defences, "\n## ")
	rows := 0
	for line := range strings.Lines(defences) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") || strings.HasPrefix(line, "| From") {
			continue
		}
		rows++
		tests := name.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, m := range tests {
			if !there[m[1]] {
				t.Errorf("there is no %s: %s", m[1], line)
			}
		}
	}
	if rows < 20 {
		t.Errorf("%d defences were found", rows)
	}
}

// Links from a document to another, or to a file, have a target.
func TestLinksInDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: %s leads nowhere", name, m[1])
			}
		}
	}
}

// The configuration and the endpoints in the README are valid.
func TestExamplesInReadme(t *testing.T) {
	text := documents(t)["../../README.md"]
	examples := 0
	for _, block := range fence.FindAllStringSubmatch(text, -1) {
		switch block[1] {
		case "yaml":
			examples++
			file := filepath.Join(t.TempDir(), "twinegress.yaml")
			if err := os.WriteFile(file, []byte(block[2]), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(config.Sources{File: file, Environ: []string{}}); err != nil {
				t.Errorf("%v in\n%s", err, block[2])
			}
		case "json":
			examples++
			if _, err := endpoints.DecodeSet([]byte(block[2]), nil, endpoints.Options{}); err != nil {
				t.Errorf("%v in\n%s", err, block[2])
			}
		}
	}
	if examples != 2 {
		t.Errorf("%d examples, want 2", examples)
	}
}
