package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// load reads a file with the given content, if any.
func load(t *testing.T, yaml string, environ []string, set map[string]string) (Config, error) {
	t.Helper()
	src := Sources{Environ: environ, Overrides: set}
	if environ == nil {
		src.Environ = []string{} // not the test process's
	}
	if yaml != "" {
		src.File = filepath.Join(t.TempDir(), "twinegress.yaml")
		if err := os.WriteFile(src.File, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(src)
}

// wantErrors compares err with "key: part of the message" each; none is no error.
func wantErrors(t *testing.T, err error, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Fatalf("unexpected error:\n%v", err)
		}
		return
	}
	var e Errors
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want Errors %q", err, err, want)
	}
	if len(e) != len(want) {
		t.Errorf("%d errors, want %d %q:\n%v", len(e), len(want), want, e)
	}
	for _, w := range want {
		key, msg, _ := strings.Cut(w, ": ")
		found := false
		for _, one := range e {
			found = found || one.Key == key && strings.Contains(one.Error(), msg)
		}
		if !found {
			t.Errorf("no error %q in:\n%v", w, e)
		}
	}
	if strings.Contains(err.Error(), "SECRET") {
		t.Errorf("a secret shows: %v", err)
	}
}

func TestLoadNothingIsTheDefaults(t *testing.T) {
	for name, yaml := range map[string]string{
		"no file": "", "only a comment": "# nothing\n", "empty sections": "ingest:\nops: {}\n",
		"no values": "ingest: {brokers: , tls: {caFile: }}\napi: {listen: }\n",
	} {
		got, err := load(t, yaml, nil, nil)
		if err != nil || !reflect.DeepEqual(got, Default()) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestPrecedence(t *testing.T) {
	const yaml = "ingest: {group: file, start: latest, brokers: [a:1, b:2]}\nbatch: {maxEvents: 10}\n"
	environ := []string{"TWINEGRESS_INGEST_GROUP=env", "TWINEGRESS_INGEST_BROKERS=c:3, d:4", "PATH=/bin"}
	got, err := load(t, yaml, environ, map[string]string{"ingest.group": "flag", "ops.listen": ":1"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Ingest.Group, want.Ingest.Start, want.Batch.MaxEvents = "flag", "latest", 10
	want.Ingest.Brokers, want.Ops.Listen = []string{"c:3", "d:4"}, ":1"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func wantEverything() Config {
	return Config{
		Ingest: Ingest{
			Brokers: []string{"a:1", "b:2"}, Topics: []string{"t", "u"}, Group: "g", Start: StartLatest,
			Protocol: ProtocolConsumer, InstanceID: "i", SessionTimeout: 10 * time.Second, RebalanceTimeout: 2 * time.Minute,
			TLS:              TLS{Enabled: true, CAFile: "ca", CertFile: "cert", KeyFile: "key"},
			SASL:             SASL{Mechanism: SASLScram256, Username: "u", Password: "SECRET"},
			MaxInFlightBytes: 1e6,
			Limits:           Limits{BatchBytes: 3 << 20, Elements: 5, Headers: 6, HeaderBytes: 7},
		},
		Endpoints: Endpoints{Store: StoreKafka, File: "e", Topic: "x", SecretsKeyFile: "k", AllowDevelopmentEmulator: true, IdentityDomains: []string{"a.example", "b.example"}, Hosts: Hosts{Allow: []string{"*.example", "10.0.0.0/8"}, Deny: []string{"c.example"}}},
		API: API{
			Listen: ":2", Tokens: []Token{{Name: "n", SHA256: hash, Role: RoleWrite, Events: true}}, RateLimit: 9,
			OIDC: OIDC{Issuer: "https://i", Audience: "a", RoleClaim: "c", ReadRole: "r", WriteRole: "w", EventsRole: "e"},
			TLS:  ServerTLS{CertFile: "cert", KeyFile: "key"},
		},
		Ops:        Ops{Listen: ":3"},
		Batch:      Batch{Linger: time.Millisecond, MaxEvents: 7},
		Backoff:    Backoff{Initial: 2 * time.Second, Max: time.Minute},
		Send:       Send{Timeout: 3 * time.Second, Attempts: 4, ThrottleLimit: 5 * time.Second, CAFile: "c"},
		DeadLetter: DeadLetter{Topic: "d", Backoff: true},
		Status:     Status{Topic: "st"},
		Positions:  Positions{Topic: "p"},
		Shutdown:   Shutdown{Timeout: 6 * time.Second},
	}
}

func TestEveryKeyFromEverySource(t *testing.T) {
	yaml := `
ingest:
  brokers: [a:1, b:2]
  topics: [t, u]
  group: g
  start: Latest
  protocol: Consumer
  instanceId: i
  sessionTimeout: 10s
  rebalanceTimeout: 2m
  tls: {enabled: true, caFile: ca, certFile: cert, keyFile: key}
  sasl: {mechanism: scram-sha-256, username: u, password: SECRET}
  maxInFlightBytes: 1000000
  waitForEndpoints: false
  limits: {batchBytes: 3MiB, elements: 5, headers: 6, headerBytes: 7}
endpoints: {store: Kafka, file: e, topic: x, secretsKeyFile: k, allowDevelopmentEmulator: true, identityDomains: [a.example, b.example], hosts: {allow: ["*.example", 10.0.0.0/8], deny: [c.example]}}
api:
  listen: ":2"
  tokens: [{name: n, sha256: " ` + strings.ToUpper(hash) + `  -\n", role: Write, events: true}]
  oidc: {issuer: "https://i", audience: a, roleClaim: c, readRole: r, writeRole: w, eventsRole: e}
  tls: {certFile: cert, keyFile: key}
  rateLimit: 9
ops: {listen: ":3"}
batch: {linger: 1ms, maxEvents: 7}
backoff: {initial: 2s, max: 1m}
send: {timeout: 3s, attempts: 4, throttleLimit: 5s, caFile: c}
deadLetter: {topic: d, backoff: true}
status: {topic: st}
positions: {topic: p, groups: false}
shutdown: {timeout: 6s}
`
	set := map[string]string{}
	var environ []string
	for path, v := range flatten(t, []byte(yaml)) {
		text := fmt.Sprint(v)
		if list, ok := v.([]any); ok && path != "api.tokens" {
			text = strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
		} else if ok {
			b, err := json.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		set[path] = text
		environ = append(environ, "TWINEGRESS_"+strings.ToUpper(strings.ReplaceAll(path, ".", "_"))+"="+text)
	}
	// Two would be too much beside the others, or be read: TestFiles.
	if len(set) != len(keys)-2 {
		t.Fatalf("%d of %d keys are tested", len(set), len(keys))
	}
	// No command line has a secret.
	delete(set, "ingest.sasl.password")
	secret := []string{"TWINEGRESS_INGEST_SASL_PASSWORD=SECRET"}
	for name, read := range map[string]func() (Config, error){
		"file":        func() (Config, error) { return load(t, yaml, nil, nil) },
		"environment": func() (Config, error) { return load(t, "", environ, nil) },
		"--set":       func() (Config, error) { return load(t, "", secret, set) },
	} {
		got, err := read()
		if err != nil || !reflect.DeepEqual(got, wantEverything()) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, wantEverything())
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		yaml    string
		environ []string
		set     map[string]string
		want    []string
	}{
		"all at once, from everywhere, each with its source": {
			yaml:    "ingest: {start: soon, groop: g}\nbatch: {linger: 5}\nnope: 1\n",
			environ: []string{"TWINEGRESS_SEND_ATTEMPTS=many", "TWINEGRESS_NOPE=1", "TWINEGRESS_INGEST_BROKER=a:1"},
			set:     map[string]string{"backoff.max": "31m", "shut.down": "1s", "ingest.tsl.enabled": "true"},
			want: []string{
				`ingest.start: must be one of earliest, latest, not "soon" (/`,
				"ingest.groop: unknown key; did you mean ingest.group?",
				"ingest.tsl.enabled: unknown key; did you mean ingest.tls? (--set)",
				"TWINEGRESS_INGEST_BROKER: unknown environment variable; did you mean TWINEGRESS_INGEST_BROKERS?",
				"batch.linger: must be a duration with a unit, such as 500ms, 10s or 1m30s, not 5",
				"nope: unknown key; known are ingest, endpoints, api,",
				`send.attempts: must be a whole number, not "many" (environment variable TWINEGRESS_SEND_ATTEMPTS)`,
				"TWINEGRESS_NOPE: unknown environment variable",
				"backoff.max: must be at most 30m, not 31m0s (--set)",
				"shut.down: unknown key",
			},
		},
		"other spelling":                {yaml: "ingest: {max_in_flight_bytes: 1, CAFile: x}", want: []string{"ingest.max_in_flight_bytes: did you mean ingest.maxInFlightBytes?", "ingest.CAFile: unknown key; known"}},
		"section as value":              {yaml: "ingest: 5", want: []string{"ingest: is a section"}},
		"value as section":              {yaml: "ingest: {brokers: {a: 1}}", want: []string{"ingest.brokers: is a value, not a section: must be a list"}},
		"dotted":                        {yaml: "ingest.group: a\ningest: {group: b}", want: []string{"ingest.group: must be written as sections"}},
		"no YAML":                       {yaml: "a: [", want: []string{}},
		"numbers as text":               {yaml: "ingest: {group: 0123, sasl: {mechanism: PLAIN, username: a, password: 99}}", want: []string{"ingest.group: put it in quotes", "ingest.sasl.password: must be a string: put it in quotes"}},
		"lists of numbers":              {yaml: "ingest: {brokers: [1], topics: 3}", want: []string{"ingest.brokers: must be a list of strings", "ingest.topics: must be a list of strings, not 3"}},
		"sizes":                         {yaml: "ingest: {maxInFlightBytes: 64MiBs}", want: []string{`ingest.maxInFlightBytes: must be a number of bytes, or one with a unit, such as 64MiB or 1MB, not "64MiBs"`}},
		"booleans":                      {yaml: "ingest: {tls: {enabled: perhaps}}", want: []string{`ingest.tls.enabled: must be true or false, not "perhaps"`}},
		"fractions":                     {yaml: "send: {attempts: 1.5}", want: []string{"send.attempts: must be a whole number, not 1.5"}},
		"one error a value":             {set: map[string]string{"ingest.sessionTimeout": "x"}, want: []string{"ingest.sessionTimeout: must be a duration"}},
		"api without tokens":            {yaml: "api: {listen: 127.0.0.1:8080}", want: []string{"api.listen: is set, but nobody could call the API"}},
		"api without tokens, by hand":   {environ: []string{"TWINEGRESS_API_LISTEN=:1"}, want: []string{"api.listen: (environment variable TWINEGRESS_API_LISTEN)"}},
		"api with tokens that are none": {yaml: "api: {listen: ':1', tokens: [1]}", want: []string{"api.tokens: must be a list of {name"}},
		"tokens with a wrong key":       {yaml: "api: {tokens: [{name: a, token: SECRET}]}", want: []string{`api.tokens: [0]: unknown key "token"`}},
		"tokens with a wrong right":     {yaml: "api: {tokens: [{name: a, events: 'SECRET'}]}", want: []string{"api.tokens: [0].events must be true or false"}},
		"tokens as text":                {environ: []string{"TWINEGRESS_API_TOKENS=SECRET"}, want: []string{"api.tokens: as JSON"}},
		"token in the clear": {
			yaml: "api: {tokens: [{name: a, sha256: SECRET, role: admin}]}",
			want: []string{"api.tokens[0].sha256: 64 hex digits", `api.tokens[0].role: must be one of read, write, not "admin"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.yaml, tc.environ, tc.set)
			if len(tc.want) == 0 {
				if err == nil || !strings.Contains(err.Error(), "twinegress.yaml: is not a YAML file") {
					t.Errorf("error %v", err)
				}
				return
			}
			wantErrors(t, err, tc.want...)
		})
	}
	if _, err := Load(Sources{File: "/does/not/exist.yaml", Environ: []string{}}); err == nil ||
		!strings.Contains(err.Error(), "/does/not/exist.yaml: the configuration file can't be read") {
		t.Errorf("missing file: %v", err)
	}
}

func TestAPIIsOffWithoutTokens(t *testing.T) {
	for name, tc := range map[string]struct {
		yaml    string
		enabled bool
		notice  string
	}{
		"nothing said":   {"", false, "neither api.tokens nor api.oidc is set"},
		"oidc":           {"api: {listen: '127.0.0.1:1', oidc: {issuer: 'https://i', audience: a}}", true, ""},
		"not only here":  {"api: {listen: ':1', tokens: [{name: a, sha256: " + hash + ", role: read}]}", true, "in the clear"},
		"turned off":     {"api: {listen: ''}", false, "api.listen is empty"},
		"tokens":         {"api: {tokens: [{name: a, sha256: " + hash + ", role: read}]}", true, ""},
		"tokens, no API": {"api: {listen: '', tokens: [{name: a, sha256: " + hash + ", role: read}]}", false, "api.listen is empty"},
	} {
		cfg, err := load(t, tc.yaml, nil, nil)
		if err != nil || cfg.API.Enabled() != tc.enabled {
			t.Errorf("%s: enabled %t, %v", name, cfg.API.Enabled(), err)
		}
		if got := strings.Join(cfg.Notices(), "\n"); !strings.Contains(got, tc.notice) || (tc.notice == "") != (got == "") {
			t.Errorf("%s: notices %q, want %q", name, got, tc.notice)
		}
	}
}

// Secrets can be in files: the password's file name is passed on, the tokens are
// read and appended to those of the other sources.
func TestFiles(t *testing.T) {
	other := strings.Repeat("ab", 32)
	write := func(content string) string {
		file := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, content := range map[string]string{
		"YAML": "# ours\n---\n- name: b\n  sha256: " + strings.ToUpper(other) + "\n  role: Write\n",
		"JSON": `[{"name": "b", "sha256": "` + other + `", "role": "write"}]`,
	} {
		cfg, err := load(t, "api: {listen: ':1', tokens: [{name: a, sha256: "+hash+", role: read}]}\n"+
			"ingest: {sasl: {mechanism: plain, username: u, passwordFile: p}}\n", nil, map[string]string{"api.tokensFile": write(content)})
		want := []Token{{Name: "a", SHA256: hash, Role: RoleRead}, {Name: "b", SHA256: other, Role: RoleWrite}}
		if err != nil || !reflect.DeepEqual(cfg.API.Tokens, want) || cfg.Ingest.SASL.PasswordFile != "p" {
			t.Errorf("%s: %+v, %v", name, cfg, err)
		}
	}
	if cfg, err := load(t, "", nil, map[string]string{"api.tokensFile": write("[{name: b, sha256: " + other + ", role: read}]")}); err != nil || !cfg.API.Enabled() {
		t.Errorf("tokens of the file alone: %t, %v", cfg.API.Enabled(), err)
	}

	for content, want := range map[string]string{
		"":                      "api.tokensFile: must be a list of",
		"SECRET":                "api.tokensFile: as JSON",
		"[{name: SECRET":        "api.tokensFile: neither YAML nor JSON",
		"[{name: a, tok: 1}]":   `api.tokensFile: [0]: unknown key "tok"`,
		"a: SECRET\nb: *SECRET": "api.tokensFile: neither YAML nor JSON",
		"[{name: a, sha256: " + other + ", role: read}]": `api.tokens[1].name: "a" is used more than once`,
	} {
		_, err := load(t, "api: {listen: ':1', tokens: [{name: a, sha256: "+hash+", role: read}]}", nil, map[string]string{"api.tokensFile": write(content)})
		wantErrors(t, err, want)
	}
	_, err := load(t, "api: {listen: ':1'}", nil, map[string]string{"api.tokensFile": "/does/not/exist"})
	wantErrors(t, err, "api.tokensFile: /does/not/exist: no such file")
}

// A service called twinegress must not keep the pods beside it from starting.
func TestEnvironmentOfKubernetesAndOthers(t *testing.T) {
	cfg, err := Load(Sources{
		Environ: []string{
			"TWINEGRESS_SERVICE_HOST=10.0.0.1", "TWINEGRESS_SERVICE_PORT=8080", "TWINEGRESS_SERVICE_PORT_HTTP=8080",
			"TWINEGRESS_PORT=tcp://10.0.0.1:8080", "TWINEGRESS_PORT_8080_TCP=tcp://10.0.0.1:8080",
			"TWINEGRESS_PORT_8080_TCP_PROTO=tcp", "TWINEGRESS_PORT_8080_TCP_PORT=8080", "TWINEGRESS_PORT_8080_TCP_ADDR=10.0.0.1",
			"TWINEGRESS_OPS_SERVICE_HOST=10.0.0.2", "TWINEGRESS_OPS_PORT_8081_TCP=tcp://10.0.0.2:8081",
			"TWINEGRESS_TOKEN=SECRET", "TWINEGRESSION=1", "TWINEGRESS_INGEST_GROUP=g=1",
		},
		IgnoreEnv: []string{"TWINEGRESS_TOKEN"},
	})
	if err != nil || cfg.Ingest.Group != "g=1" {
		t.Errorf("group %q, %v", cfg.Ingest.Group, err)
	}
	_, err = Load(Sources{Environ: []string{"TWINEGRESS_TOKEN=SECRET", "TWINEGRESS_OPS_PORT=8081"}})
	wantErrors(t, err, "TWINEGRESS_TOKEN: unknown environment", "TWINEGRESS_OPS_PORT: unknown environment")
}
