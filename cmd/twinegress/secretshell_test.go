package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/endpoints/storetest"
	"twinegress/internal/emulator"
)

// secretShell is an environment with secrets that commands may not show.
type secretShell struct {
	*env.Env
	set   []env.Endpoint
	known env.Secrets
}

// said runs a command for people and for programs, if it knows the difference,
// and looks at all that it says: its output and its error.
func (h secretShell) said(t *testing.T, in string, args ...string) (all string) {
	t.Helper()
	formats := [][]string{nil}
	if args[0] == "check" || slices.Contains([]string{"list", "get", "create"}, args[1]) {
		formats = [][]string{{"--output", "table"}, {"--output", "json"}}
	}
	for _, format := range formats {
		text, _ := shell{t: t}.all(in, append(slices.Clone(args), format...)...)
		h.known.Check(t, strings.Join(append(slices.Clone(args[:min(2, len(args))]), format...), " "), text)
		all += text
	}
	return all
}

// No secret shows in what the commands print about the endpoints, for people
// or as JSON, be all well or not.
func TestNoSecretInTheShell(t *testing.T) {
	h := secretShell{Env: env.New(t, env.Config{Partitions: 2, Services: env.WithSecrets})}
	h.set, h.known = h.SecretEndpoints()
	h.SetEndpoints(h.set...)
	settings := env.Settings{"send.timeout": "400ms", "send.attempts": "2", "backoff.initial": "20ms", "backoff.max": "50ms"}
	r := start(h.Env, app.Options{Config: load(h.Env, settings)})
	check := []string{"check"}
	for key, value := range h.Settings(settings) {
		check = append(check, "--set", key+"="+value)
	}
	t.Setenv(serverVariable, "http://"+r.APIAddress())
	t.Setenv(tokenVariable, env.Token)
	produced := 0
	for _, tt := range []struct {
		name             string
		fault            emulator.Fault
		checked, reading string // what is said of it, by `check` and by `endpoints get`
	}{
		{"well", emulator.Fault{}, "ok", "Ready"},
		{"no key", emulator.Fault{RejectKey: "both"}, "unauthorized", "unauthorized"},
		{"no primary key", emulator.Fault{RejectKey: "primary"}, "unauthorized", "Ready"},
		{"no entity", emulator.Fault{Refuse: "amqp:not-found"}, "404", "Failed"},
		{"no answer", emulator.Fault{Hang: true}, "FAILED", "Failed"},
		{"nobody there", emulator.Fault{Down: true}, "connection refused", "Failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entities := []string{"hub", "topic", "grid"}
			if tt.fault.Down {
				entities = []string{emulator.Namespace, "grid"}
			}
			for _, entity := range entities {
				h.SetFault(tt.fault, entity)
			}
			defer h.Repair(entities...)
			h.Produce(h.Events(12)...)
			produced += 12
			r.settled(produced)
			if out := h.said(t, "", check...); !strings.Contains(out, tt.checked) {
				t.Errorf("check says nothing of it: %s", out)
			}
			if out := h.said(t, "", "endpoints", "list"); strings.Count(out, "***") != 2*len(h.set) {
				t.Errorf("list shows other than masks: %s", out)
			}
			for _, e := range h.set {
				if out := h.said(t, "", "endpoints", "get", e.Text("name")); !strings.Contains(out, tt.reading) || strings.Count(out, "***") != 4 {
					t.Errorf("get says nothing of it, or shows other than masks: %s", out)
				}
				h.said(t, "", "endpoints", "retry", e.Text("name"))
			}
			h.said(t, "", "__complete", "endpoints", "get", "")
		})
	}

	// Bodies that are refused, of which each part may be a key.
	key, conn, signed := h.set[2].Text("connectionString"), h.set[0].Text("connectionString"), h.set[3].Text("connectionString")
	bodies := map[string]string{
		"keys for values":   `{"type":"` + conn + `","eventTypes":["` + key + `"],"path":"` + signed + `","body":"` + key + `","filter":"` + key + `"}`,
		"keys for fields":   `{"` + key + `":1,"` + signed + `":2}`,
		"half of it":        string(h.set[3].JSON()[:250]),
		"a key":             `"` + key + `"`,
		"no JSON":           conn,
		"broken string":     string(h.set[3].With("connectionString", strings.Replace(signed, "=SharedAccessSignature", "", 1)).JSON()),
		"another namespace": string(h.set[0].With("secondaryConnectionString", strings.Replace(conn, "127.0.0.1", "other", 1)).JSON()),
		"a taken name":      string(h.set[3].JSON()),
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			for _, command := range [][]string{{"endpoints", "create"}, {"endpoints", "update", "grid"}} {
				if out := h.said(t, body, command...); !strings.Contains(out, "twinegress: the endpoint") && !strings.Contains(out, "is not valid JSON") {
					t.Errorf("%s is not refused: %s", command[1], out)
				}
			}
			// The same in the file that `check` reads.
			set := h.Write("broken.json", []byte("["+body+","+string(h.set[3].JSON())+"]"))
			if out := h.said(t, "", append(check, "--set", "endpoints.file="+set)...); !strings.Contains(out, "FAILED  endpoints") {
				t.Errorf("check takes it: %s", out)
			}
		})
	}

	if out := h.said(t, "", "endpoints", "list", "--types", key, "--event-types", conn); !strings.Contains(out, "types") {
		t.Error(out)
	}
	// A typo in the key that decrypts.
	right := storetest.AgeKey(t)
	typo := strings.ToLower(right)
	h.known["the key"], h.known["the key with a typo"] = right, typo
	if out := h.said(t, "", append(check, "--set", "endpoints.secretsKeyFile="+h.Write("typo.key", []byte(typo+"x")))...); !strings.Contains(out, "must be an age secret key") {
		t.Error(out)
	}
	if out := h.said(t, "", "endpoints", "delete", "hub by signature"); !strings.HasPrefix(out, "deleted hub by signature (") {
		t.Error(out)
	}
	// Something in between that says what it was sent.
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusBadGateway)
		_ = r.Write(rw)
	}))
	defer proxy.Close()
	t.Setenv(serverVariable, proxy.URL)
	if out := h.said(t, conn, "endpoints", "create"); !strings.Contains(out, "is it the Management API") {
		t.Error(out)
	}
}
