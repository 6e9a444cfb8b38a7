package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// A mistake near a secret is named without it.
func TestErrorsHaveNoSecret(t *testing.T) {
	const secret = "hunter2hunter2"
	for name, tc := range map[string]struct {
		yaml    string
		environ []string
		set     map[string]string
		want    []string
	}{
		"--set": {
			set:  map[string]string{"ingest.sasl.password": secret},
			want: []string{"ingest.sasl.password: is a secret", "TWINEGRESS_INGEST_SASL_PASSWORD", "--set"},
		},
		"below it":              {yaml: "ingest: {sasl: {password: {" + secret + ": 1}}}", want: []string{"ingest.sasl.password: is a value, not a section"}},
		"a list":                {yaml: "ingest: {sasl: {password: [" + secret + "]}}", want: []string{"ingest.sasl.password: must be a string"}},
		"an alias":              {yaml: "ingest: {sasl: {password: *" + secret + "}}", want: []string{"unknown anchor … referenced"}},
		"a tag":                 {yaml: "ingest: {sasl: {password: !!int " + secret + "}}", want: []string{"is not a YAML file"}},
		"the whole file":        {yaml: secret, want: []string{"is not a YAML file"}},
		"a value as a key":      {yaml: secret + "+/=: x", want: []string{"…: unknown key"}},
		"a variable":            {environ: []string{"TWINEGRESS_" + strings.Repeat(secret, 5) + "=1"}, want: []string{"…: unknown environment variable"}},
		"a broker's user":       {yaml: "ingest: {brokers: ['SASL_SSL://u:" + secret + "@host:9092', 'u:" + secret + "@host:1']}", want: []string{"ingest.brokers[0]: without a user", "ingest.brokers[1]: without a user"}},
		"a listener's user":     {yaml: "ops: {listen: 'u:" + secret + "@:9092'}", want: []string{"ops.listen: without a user"}},
		"a token as role":       {yaml: "api: {tokens: [{name: a, role: " + secret + ", sha256: " + secret + "}]}", want: []string{"api.tokens[0].role: not what is there", "api.tokens[0].sha256: 64 hex digits"}},
		"a token as a key":      {yaml: "api: {tokens: [{" + secret + ": a}]}", want: []string{"api.tokens: [0]: unknown key what is there"}},
		"a connection string":   {yaml: "ingest: {start: 'Endpoint=sb://x/;SharedAccessKey=" + secret + "'}", want: []string{"ingest.start: sharedaccesskey=***"}},
		"a long value":          {yaml: "ingest: {start: " + strings.Repeat("x", 200) + secret + "}", want: []string{`ingest.start: xxx…"`}},
		"what steers terminals": {yaml: `ingest: {start: "\e[2J\u202e"}`, want: []string{`ingest.start: not "\u001b[2j\u202e"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.yaml, tc.environ, tc.set)
			if err == nil {
				t.Fatal("no error")
			}
			text := err.Error()
			if strings.Contains(text, secret) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Errorf("it says %q", text)
			}
			for _, want := range tc.want {
				for _, part := range strings.SplitN(want, ": ", 2) {
					if !strings.Contains(text, part) {
						t.Errorf("%q is not in %q", part, text)
					}
				}
			}
		})
	}
}

// FuzzLoad looks for a way by which a part of a password gets into an error.
func FuzzLoad(f *testing.F) {
	f.Add("", "", "ingest: {start: soon}", "shut.down")
	f.Add("*", "", "nope: 1", "a.b")
	f.Add("!!int ", " | >", "api: {tokens: [{name: a}]}", "ingest.sasl.mechanism")
	f.Add("&", "@", "ingest: {sasl: {mechanism: SCRAM}}", "api.oidc.issuer")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, before, after, more, key string) {
		const mark = "hunter2hunter2"
		password := before + mark + after
		if strings.Contains(more+key, "hunter2") {
			return // a part of the mark is nobody's secret
		}
		asJSON, err := json.Marshal(password)
		if err != nil {
			t.Fatal(err)
		}
		// What ends a plain scalar of YAML would make what follows something else.
		plain := strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) && !strings.ContainsRune("{}[],:#?", r) {
				return r
			}
			return -1
		}, password)
		const section = "ingest: {sasl: {mechanism: PLAIN, username: u, password: "
		for name, src := range map[string]Sources{
			"quoted":      {File: section + string(asJSON) + "}}\n" + more},
			"plain":       {File: section + plain + "}}\n"},
			"section":     {File: "ingest: {sasl: " + plain + "}\n"},
			"environment": {File: more, Environ: []string{"TWINEGRESS_INGEST_SASL_PASSWORD=" + password}},
			"--set":       {File: more, Overrides: map[string]string{"ingest.sasl.password": password, key: "1"}},
		} {
			if src.File != "" {
				path := filepath.Join(dir, "twinegress.yaml")
				if err := os.WriteFile(path, []byte(src.File), 0o600); err != nil {
					t.Fatal(err)
				}
				src.File = path
			}
			if src.Environ == nil {
				src.Environ = []string{}
			}
			if _, err := Load(src); err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
