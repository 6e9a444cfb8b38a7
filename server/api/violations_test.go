package api

import (
	"strings"
	"testing"
)

// What is wrong with an endpoint is a reply that names each field. What all can
// be wrong is for the tests of package endpoints.
func TestViolations(t *testing.T) {
	documented := documentedStatuses(t)
	for name, tt := range map[string]struct {
		body, beside string
		status       int
		want         []string // field: a part of what is said about it; no other field
	}{
		"many at once": {
			body: `{"type":"x","eventTypes":["y"],"path":"","z":1,"connectionString":"` + key1 + `"}`, status: 400,
			want: []string{"type: unknown value", "eventTypes: unknown event type", "path: is required: the name of the event hub", "z: unknown field"},
		},
		"the document itself": {body: " ", status: 400, want: []string{": is empty, and is to be JSON"}},
		"a key for a mask": {
			body: strings.Replace(newHub, key1, "***", 1), status: 400,
			want: []string{"connectionString: is masked, and can stand for the stored key only"},
		},
		"conflicts": {
			body: deviceNamed("taken"), beside: deviceNamed("taken"), status: 409,
			want: []string{"name: is already that of endpoint taken (", "eventTypes: only one endpoint may take DeviceMessage, and endpoint taken ("},
		},
		"a conflict, and a violation": {
			body: strings.Replace(deviceNamed("taken"), `"path":"other"`, `"path":" "`, 1), beside: deviceNamed("taken"), status: 400,
			want: []string{"path: is required"},
		},
	} {
		for _, op := range contract {
			if !op.body {
				continue
			}
			t.Run(name+" "+op.method+strings.ReplaceAll(op.path, "/", "_"), func(t *testing.T) {
				r := newEnv(t)
				if tt.beside != "" {
					if w := r.do(call{method: "POST", path: "/endpoints", body: tt.beside}); w.Code != 201 {
						t.Fatalf("what is there already: %s", w.Body)
					}
				}
				body := tt.body
				if op.method == "PUT" && strings.Contains(body, "***") {
					body = strings.Replace(body, "ns.example.net", "evil.example.net", 1)
				}
				w := r.do(call{method: op.method, path: op.path, body: body})
				if w.Code != tt.status || !documented[op.id][w.Code] {
					t.Fatalf("status %d, want %d, documented %t: %s", w.Code, tt.status, documented[op.id][w.Code], w.Body)
				}
				e := errorOf(t, w)
				if len(e.Details) != len(tt.want) {
					t.Errorf("%d details, want %d: %s", len(e.Details), len(tt.want), w.Body)
				}
				for _, want := range tt.want {
					field, message, _ := strings.Cut(want, ": ")
					said := false
					for _, d := range e.Details {
						said = said || d.Field == field && strings.Contains(d.Message, message) && strings.Contains(e.Message, d.Message)
					}
					if !said {
						t.Errorf("%s: %q is not said: %s", field, message, w.Body)
					}
				}
			})
		}
	}
}

// deviceNamed is an endpoint of which there may be one only.
func deviceNamed(name string) string {
	return strings.NewReplacer("TopologyOperation", "DeviceMessage", key1, key1+`;EntityPath=other","name":"`+name).Replace(newHub)
}
