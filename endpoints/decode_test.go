package endpoints_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

func TestDecodeSet(t *testing.T) {
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	body := func(more fields) string { return hub.with(more).body(t) }
	for name, tc := range map[string]struct {
		in   string
		n    int
		want string // part of the message
	}{
		"empty array":     {in: " [ ] "},
		"two":             {in: "[" + plainHub + "," + body(fields{"ID": strings.ToUpper(id)}) + "]", n: 2},
		"byte order mark": {in: "\xef\xbb\xbf[" + plainHub + "]", n: 1},
		"one object":      {in: plainHub, want: "must be an array"},
		"null":            {in: "null", want: "must be an array"},
		"nothing":         {in: "", want: "is empty"},
		"not objects":     {in: "[1,null]", want: "endpoints[0]: an endpoint must be a JSON object\nendpoints[1]: an endpoint"},
		"masked":          {in: "[" + strings.ReplaceAll(plainHub, storetest.Key1, "***") + "]", want: "connectionString: is not a connection string: part 3: SharedAccessKey is masked: give the key itself"},
		"id no string":    {in: "[" + body(fields{"id": 7}) + "]", want: "endpoints[0]: id: must be a string"},
		"every one's faults": {
			in:   "[" + body(fields{"x": 1}) + "," + body(fields{"name": "b", "body": "c"}) + "]",
			want: "endpoints[0]: x: unknown field\nendpoints[1] (b): body: unknown value",
		},
	} {
		t.Run(name, func(t *testing.T) {
			eps, err := endpoints.DecodeSet([]byte(tc.in), nil, endpoints.Options{})
			switch {
			case tc.want != "":
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("error %v, want %q", err, tc.want)
				}
			case err != nil || len(eps) != tc.n:
				t.Fatalf("%d, %v; want %d", len(eps), err, tc.n)
			case tc.n == 2 && eps[1].ID != id:
				t.Errorf("explicit id: %v", eps)
			}
		})
	}
}

// A record that isn't JSON is no endpoint for anyone; another may be one for
// another version.
func TestDecodeStored(t *testing.T) {
	for in, notAnEndpoint := range map[string]bool{"": true, "{": true, "[]": true, "{}": false, `{"x":1}`: false} {
		_, err := endpoints.DecodeStored([]byte(in), nil, endpoints.Options{})
		if v, ok := errors.AsType[endpoints.ValidationErrors](err); !ok || v.NotAnEndpoint() != notAnEndpoint {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestSecretsAreMaskedEverywhere(t *testing.T) {
	cs, err := endpoints.ParseConnectionString(storetest.Conn1 + ";EntityPath=hub")
	storetest.Must(t, err)
	e := storetest.Hub("n", func(e *endpoints.Endpoint) { e.ID, e.LastUpdated = "7", time.Unix(0, 0) })
	withKey := func(key string) func(e *endpoints.Endpoint) {
		return func(e *endpoints.Endpoint) { e.ConnectionString = key }
	}
	broken := storetest.Hub("", withKey("Endpoint=sb://ns/;SharedAccessKeySECRET"))
	// A key that reads as a connection string is a key all the same.
	odd := storetest.Grid("", withKey("Endpoint=sb://SECRET/;SharedAccessKeyName=a;SharedAccessKey=b"))
	enc := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	for _, v := range []any{
		cs, &cs,
		struct{ C endpoints.ConnectionString }{cs},
		e, &e,
		[]endpoints.Endpoint{e},
		map[string]endpoints.Endpoint{"e": e},
		storetest.Grid(""), broken, odd,
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			storetest.NoSecret(t, verb, fmt.Sprintf(verb, v))
		}
		buf, err := enc.EncodeEntry(zapcore.Entry{}, []zap.Field{zap.Any("a", v), zap.Reflect("b", v)})
		storetest.Must(t, err)
		storetest.NoSecret(t, "zap", buf.String())
		storetest.NoSecret(t, "slog", slog.AnyValue(v).Resolve().String())
	}
	for want, v := range map[string]any{
		`{"id":"7","name":"n","type":"EventHub","eventTypes":["SensorChange"],` +
			`"connectionString":"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=***",` +
			`"secondaryConnectionString":"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=***",` +
			`"path":"hub","lastUpdatedUtc":"1970-01-01T00:00:00Z"}`: e,
		`"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=***;EntityPath=hub"`: cs,
		`"***"`: broken.Document().ConnectionString,
	} {
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("%s, %v\nwant %s", got, err, want)
		}
	}
}
