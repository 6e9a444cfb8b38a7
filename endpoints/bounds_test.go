package endpoints_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// However many mistakes there are, twenty are reported and the others counted:
// those of a body, of a set, of decoding and validation together.
func TestViolationsAreBounded(t *testing.T) {
	unknown := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"x%d":1,`, i)
		}
		return b.String()
	}
	decode := func(body string) error {
		_, err := endpoints.Decode([]byte(body), endpoints.Endpoint{}, endpoints.Options{})
		return err
	}
	set := func(n int, entry string) error {
		_, err := endpoints.DecodeSet([]byte("["+strings.TrimSuffix(strings.Repeat(entry+",", n), ",")+"]"), nil, endpoints.Options{})
		return err
	}
	named := strings.Replace(plainHub, "{", `{"name":"a",`, 1)
	for name, tt := range map[string]struct {
		err      error
		n        int
		last     string
		conflict bool
	}{
		"19":                          {decode("{" + unknown(19) + plainHub[1:]), 19, "x18: unknown field", false},
		"20":                          {decode("{" + unknown(20) + plainHub[1:]), 20, "x19: unknown field", false},
		"21":                          {decode("{" + unknown(21) + plainHub[1:]), 21, "and 1 more", false},
		"100,000":                     {decode("{" + unknown(100_000) + plainHub[1:]), 21, "and 99980 more", false},
		"of decoding and validation":  {decode("{" + unknown(18) + `"colour":1}`), 21, "and 3 more", false},
		"over the limit in both":      {decode("{" + unknown(30) + `"colour":1}`), 21, "and 15 more", false},
		"of a set":                    {set(10, `{"type":"Nope"}`), 21, "and 20 more", false},
		"of a set, each over a limit": {set(3, "{"+unknown(30)+plainHub[1:]), 21, "and 70 more", false},
		"conflicts":                   {set(25, named), 21, "and 4 more", true},
		"conflicts and others":        {set(25, strings.Replace(named, `"path"`, `"x":1,"path"`, 1)), 21, "and 29 more", false},
	} {
		wrong, ok := errors.AsType[endpoints.ValidationErrors](tt.err)
		if !ok || len(wrong) != tt.n || wrong[len(wrong)-1].String() != tt.last || wrong.Conflict() != tt.conflict || wrong.NotAnEndpoint() {
			t.Errorf("%s: %d violations, a conflict %t, no endpoint %t:\n%v", name, len(wrong), wrong.Conflict(), wrong.NotAnEndpoint(), tt.err)
		}
		if size := len(tt.err.Error()); size > 8<<10 {
			t.Errorf("%s: a text of %d bytes", name, size)
		}
	}
}

// A set has a limit, for files, for other programs and for the API.
func TestSetIsBounded(t *testing.T) {
	const most = endpoints.MaxEndpoints
	if most < storetest.Many {
		t.Errorf("%d are possible, and an instance is made for %d", most, storetest.Many)
	}
	set := storetest.Hubs(0, most+1)
	tooMany := func(name string, err error) {
		t.Helper()
		wrong, ok := errors.AsType[endpoints.ValidationErrors](err)
		if !ok || !wrong.Conflict() || !strings.Contains(err.Error(), "20001 endpoints are too many: there may be 20000") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := endpoints.Prepare(set, endpoints.Options{})
	tooMany("Prepare", err)
	_, err = endpoints.DecodeSet([]byte("["+strings.Repeat("0,", most)+"0]"), nil, endpoints.Options{})
	tooMany("DecodeSet", err)

	full, err := endpoints.Prepare(set[:most], endpoints.Options{})
	storetest.Must(t, err)
	_, err = endpoints.Revise(full, append(endpoints.Clone(full), set[most]), endpoints.Options{}, time.Now())
	tooMany("Revise", err)
	if _, err = endpoints.Revise(full[:most-1], full, endpoints.Options{}, time.Now()); err != nil {
		t.Errorf("the last one that has room: %v", err)
	}
	// Who has more, from before, can still change and delete.
	over := append(endpoints.Clone(full), set[most])
	if _, err = endpoints.Revise(over, over, endpoints.Options{}, time.Now()); err != nil {
		t.Errorf("no more than before: %v", err)
	}
}

// What can't be seen has no place in what people read and compare: two names would
// look alike, and a terminal would obey.
func TestHiddenCharacters(t *testing.T) {
	for _, c := range []string{
		"\x00", "\n", "\x1b", "\x7f", "\u009b", // controls, C1 among them
		"\u00ad", "\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "\U000e0041", // formats
		"\u2028", "\u2029", "\u00a0", "\u3000", // separators
		"\ue000", "\uffff", "\ufffd", // private, none, unreadable
	} {
		for field, body := range map[string]fields{
			"name":             {"name": "h" + c + "b"},
			"path":             {"path": "h" + c + "b"},
			"connectionString": {"connectionString": strings.Replace(keyed, "=send", "=s"+c+"d", 1)},
		} {
			_, err := endpoints.Decode([]byte(hub.with(body).body(t)), endpoints.Endpoint{}, endpoints.Options{})
			if wrong, ok := errors.AsType[endpoints.ValidationErrors](err); !ok || len(wrong) != 1 || wrong[0].Field != field {
				t.Errorf("%U in %s: %v", []rune(c), field, err)
			}
		}
	}
}

// White space around the parts of a connection string is not part of it: what is
// stored, compared and handed to the SDKs, which take none, is without it.
func TestConnectionStringsAreTidied(t *testing.T) {
	spread := func(s string) string {
		return " " + strings.NewReplacer(";", " ;\n ", "=sb", " = sb").Replace(s) + "\n;"
	}
	body := hub.with(fields{"connectionString": spread(keyed), "secondaryConnectionString": spread(keyed2)})
	e, err := endpoints.Decode([]byte(body.body(t)), endpoints.Endpoint{}, endpoints.Options{})
	if err != nil || e.ConnectionString != keyed+";" || e.SecondaryConnectionString != keyed2+";" {
		t.Fatalf("%v, %t", err, e.ConnectionString == keyed+";")
	}
	// A mask is found in it, too.
	masked := hub.with(fields{"connectionString": spread(namespace + ";SharedAccessKeyName=send;SharedAccessKey=***")})
	again, err := endpoints.Decode([]byte(masked.body(t)), e, endpoints.Options{})
	if err != nil || again.ConnectionString != keyed+";" {
		t.Errorf("masked: %v", err)
	}
}

// A set that would be too large to be read again isn't written.
func TestSetBytesAreBounded(t *testing.T) {
	set := storetest.Hubs(0, 2)
	sized := func(n int) endpoints.SecretFunc {
		return func(string, string) (string, error) { return strings.Repeat("x", n), nil }
	}
	empty, err := endpoints.EncodeSet(set, sized(0))
	storetest.Must(t, err)
	size := (endpoints.MaxSetBytes - len(empty) - len(`"connectionString": "",`)) / 4
	for n, ok := range map[int]bool{size - 100: true, size + 100: false} {
		data, err := endpoints.EncodeSet(set, sized(n))
		wrong, _ := errors.AsType[endpoints.ValidationErrors](err)
		if (err == nil) != ok || !ok && (data != nil || !wrong.Conflict() || !strings.Contains(err.Error(), "2 endpoints would have 64 MiB, and there may be 64")) {
			t.Errorf("%d: %d bytes, %v", n, len(data), err)
		}
	}
}
