package endpoints

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// body is a POST body with more keys put in.
func body(more string) string {
	return fmt.Sprintf(`{"type":"EventHub","eventTypes":["SensorChange"],"connectionString":%q,"path":"hub"%s}`, ehConn, more)
}

func TestDecode(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want []string
	}{
		"plain": {in: body("")},
		"optional fields": {in: body(`,"name":"n","body":"Data","ordering":"NONE","overflow":"drop","authentication":"KeyBased",
			"secondaryConnectionString":null,"filter":null`)},
		"read-only fields, whatever they hold": {in: body(`,"id":7,"lastUpdatedUtc":"2020-01-01T00:00:00Z","status":"Ready","properties":{"a":"b"}`)},
		"pascal case": {in: strings.NewReplacer("type", "Type", "event", "Event", "connection", "Connection", "path", "Path").
			Replace(body(""))},

		"filter":     {in: body(`,"filter":"$body.x > 1"`)},
		"bad filter": {in: body(`,"filter":" type = SensorChange"`), want: []string{"filter: column 9: SensorChange is not known; text is in single quotes"}},
		"decoding and validation together": {
			in:   body(`,"overflow":"spill","paht":"x"`),
			want: []string{"paht: unknown field", "overflow: unknown value"},
		},
		"masked": {
			in:   strings.ReplaceAll(body(""), key1, "***"),
			want: []string{"connectionString: is masked, and can stand for the stored key only where that goes to the same host"},
		},
		"syntax":      {in: "{\n  \"type\": \"EventHub\",\n  SECRET}", want: []string{": line 3, column 3: invalid character 'S'"}},
		"cut off":     {in: `{"connectionString":"SECRET`, want: []string{": unexpected end"}},
		"two of them": {in: body("") + body(""), want: []string{": is not valid JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Decode([]byte(tc.in), Endpoint{}, Options{})
			wantViolations(t, err, tc.want...)
			if err == nil && (e.Type != TypeEventHub || e.Path != "hub" || e.ID != "" || !e.LastUpdated.IsZero() || e.ConnectionString != ehConn) {
				t.Errorf("decoded %s with id %q", e, e.ID)
			}
		})
	}
}

func TestDecodeSet(t *testing.T) {
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	for name, tc := range map[string]struct {
		in   string
		n    int
		want string // part of the message
	}{
		"empty array":     {in: " [ ] "},
		"two":             {in: "[" + body("") + "," + body(`,"id":"`+id+`"`) + "]", n: 2},
		"byte order mark": {in: "\xef\xbb\xbf[" + body("") + "]", n: 1},
		"one object":      {in: body(""), want: "must be an array"},
		"null":            {in: "null", want: "must be an array"},
		"nothing":         {in: "", want: "is empty"},
		"not objects":     {in: "[1,null]", want: "endpoints[0]: an endpoint must be a JSON object\nendpoints[1]: an endpoint"},
		"masked":          {in: "[" + strings.ReplaceAll(body(""), key1, "***") + "]", want: "connectionString: is not a connection string: part 3: SharedAccessKey is masked: give the key itself"},
		"id no string":    {in: "[" + body(`,"id":7`) + "]", want: "endpoints[0]: id: must be a string"},
		"every one's faults": {
			in:   "[" + body(`,"x":1`) + "," + body(`,"name":"b","body":"c"`) + "]",
			want: "endpoints[0]: x: unknown field\nendpoints[1] (b): body: unknown value",
		},
	} {
		t.Run(name, func(t *testing.T) {
			eps, err := DecodeSet([]byte(tc.in), nil, Options{})
			if tc.want == "" {
				if err != nil || len(eps) != tc.n {
					t.Fatalf("%d, %v; want %d", len(eps), err, tc.n)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
		})
	}
	eps, err := DecodeSet([]byte("["+body(`,"ID":"`+strings.ToUpper(id)+`"`)+"]"), nil, Options{})
	if err != nil || eps[0].ID != id {
		t.Errorf("explicit id: %v, %v", eps, err)
	}
}

// A record that isn't JSON is no endpoint for anyone; another may be one for
// another version.
func TestDecodeStored(t *testing.T) {
	for in, notAnEndpoint := range map[string]bool{"": true, "{": true, "[]": true, "{}": false, `{"x":1}`: false} {
		_, err := DecodeStored([]byte(in), nil, Options{})
		var v ValidationErrors
		if !errors.As(err, &v) || v.NotAnEndpoint() != notAnEndpoint {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestEndpointIsMaskedEverywhere(t *testing.T) {
	sb := hub(named("n"), func(e *Endpoint) { e.ID, e.LastUpdated = "7", time.Unix(0, 0) })
	broken := hub(func(e *Endpoint) { e.ConnectionString = "Endpoint=sb://ns/;SharedAccessKeySECRET" })
	// A key that reads as a connection string is a key all the same.
	odd := grid(func(e *Endpoint) {
		e.ConnectionString = "Endpoint=sb://SECRET/;SharedAccessKeyName=a;SharedAccessKey=b"
	})
	for _, e := range []Endpoint{sb, grid(), broken, odd} {
		var b strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			fmt.Fprintf(&b, verb, e)
			fmt.Fprintf(&b, verb, &e)
			fmt.Fprintf(&b, verb, []Endpoint{e})
			fmt.Fprintf(&b, verb, map[string]Endpoint{"e": e})
		}
		j, err := json.Marshal(map[string]any{"e": e, "p": &e})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(j)
		enc := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
		buf, err := enc.EncodeEntry(zapcore.Entry{}, []zap.Field{
			zap.Object("a", e), zap.Any("b", e), zap.Stringer("c", e), zap.Any("d", []Endpoint{e}), zap.Reflect("e", e),
		})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(buf.Bytes())
		b.WriteString(e.LogValue().String())
		noSecret(t, b.String())
	}
	j, err := json.Marshal(sb)
	const want = `{"id":"7","name":"n","type":"EventHub","eventTypes":["SensorChange"],` +
		`"connectionString":"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=***",` +
		`"secondaryConnectionString":"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=***",` +
		`"path":"hub","lastUpdatedUtc":"1970-01-01T00:00:00Z"}`
	if err != nil || string(j) != want {
		t.Errorf("%s, %v\nwant %s", j, err, want)
	}
}
