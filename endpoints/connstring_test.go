package endpoints

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestParseConnectionString(t *testing.T) {
	const base = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + key1
	full := ConnectionString{
		Endpoint: "sb://ns.servicebus.windows.net/", Host: "ns.servicebus.windows.net",
		SharedAccessKeyName: "send", SharedAccessKey: key1,
	}
	with := func(f func(*ConnectionString)) ConnectionString {
		cs := full
		f(&cs)
		return cs
	}
	for name, tc := range map[string]struct {
		in   string
		want ConnectionString
		err  string // part of the message
	}{
		"as the portal shows it": {in: base, want: full},
		"final semicolon":        {in: base + ";", want: full},
		"entity path":            {in: base + ";EntityPath=hub", want: with(func(c *ConnectionString) { c.EntityPath = "hub" })},
		"nested entity":          {in: base + ";EntityPath=a/b", want: with(func(c *ConnectionString) { c.EntityPath = "a/b" })},
		"other case, other order": {
			in:   "SHAREDACCESSKEY=" + key1 + ";sharedaccesskeyname=send;endpoint=sb://ns.servicebus.windows.net/",
			want: full,
		},
		"host in capitals, no slash": {
			in:   strings.Replace(base, "sb://ns.servicebus.windows.net/", "sb://NS.servicebus.windows.net", 1),
			want: with(func(c *ConnectionString) { c.Endpoint = "sb://NS.servicebus.windows.net" }),
		},
		"emulator with a port": {
			in: "Endpoint=sb://127.0.0.1:5673;SharedAccessKeyName=k;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;",
			want: ConnectionString{
				Endpoint: "sb://127.0.0.1:5673", Host: "127.0.0.1:5673", SharedAccessKeyName: "k",
				SharedAccessKey: "SAS_KEY_VALUE", UseDevelopmentEmulator: true,
			},
		},
		"IPv6": {
			in:   strings.Replace(base, "sb://ns.servicebus.windows.net/", "sb://[::1]:5671/", 1),
			want: with(func(c *ConnectionString) { c.Endpoint, c.Host = "sb://[::1]:5671/", "[::1]:5671" }),
		},
		"signature": {
			in: "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessSignature=SharedAccessSignature sr=ns&sig=" + key1 + "&se=1&skn=send",
			want: with(func(c *ConnectionString) {
				c.SharedAccessKeyName, c.SharedAccessKey = "", ""
				c.SharedAccessSignature = "SharedAccessSignature sr=ns&sig=" + key1 + "&se=1&skn=send"
			}),
		},
		"setting of an old library": {in: base + ";TransportType=Amqp", want: full},

		// Each mistake by itself is in violationrows_test.go.
		"empty":                 {in: "", err: "Endpoint is missing; SharedAccessKeyName and SharedAccessKey are missing"},
		"separator missing":     {in: "Endpoint=sb://ns/;SharedAccessKeyName=sendSharedAccessKey=" + key1, err: "part 2: SharedAccessKeyName must"},
		"equals sign missing":   {in: "Endpoint=sb://ns/;SharedAccessKeyName=send;SharedAccessKey" + key1, err: "part 3: unknown name"},
		"path in the endpoint":  {in: strings.Replace(base, ".net/", ".net/hub", 1), err: "part 1: Endpoint must be sb://host/"},
		"user in the endpoint":  {in: strings.Replace(base, "sb://", "sb://SECRET:SECRET@", 1), err: "part 1: Endpoint must be sb://host/"},
		"no port after a colon": {in: strings.Replace(base, ".net/", ".net:/", 1), err: "its port must be"},
		"an address":            {in: strings.Replace(base, "ns.servicebus.windows.net", "10.1.2.3:5671", 1), want: ConnectionString{Endpoint: "sb://10.1.2.3:5671/", Host: "10.1.2.3:5671", SharedAccessKeyName: "send", SharedAccessKey: key1}},
		"everything that is wrong": {
			in: "Endpoint=http://ns/;SharedAccessKeyName=;SharedAccessKey=a b;EntityPath=x y;Foo=1;UseDevelopmentEmulator=maybe;bare",
			err: "part 1: Endpoint must start with sb://; part 2: SharedAccessKeyName must be a policy's name, without spaces or =; part 3: SharedAccessKey must not have spaces; " +
				"part 4: EntityPath must not have spaces; part 5: unknown name; known are Endpoint, SharedAccessKeyName, SharedAccessKey, SharedAccessSignature, EntityPath and UseDevelopmentEmulator; " +
				"part 6: UseDevelopmentEmulator must be true or false; part 7 is not of the form Name=value",
		},
		"wrong, and something missing": {in: "Endpoint=http://ns/", err: "part 1: Endpoint must start with sb://; SharedAccessKeyName and SharedAccessKey are missing"},
		"space before a name":          {in: strings.Replace(base, ";", "; ", 1), err: "part 2: unknown name"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseConnectionString(tc.in)
			if tc.err == "" {
				// %+v would mask what differs.
				if err != nil || got != tc.want {
					t.Fatalf("got %s (key %q, host %q), %v; want %s", got, got.SharedAccessKey, got.Host, err, tc.want)
				}
				noSecret(t, got.String())
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if got != (ConnectionString{}) {
				t.Errorf("an error comes with a value: %s", got)
			}
			noSecret(t, err.Error())
		})
	}
}

func TestConnectionStringIsMaskedEverywhere(t *testing.T) {
	cs, err := ParseConnectionString(ehConn + ";EntityPath=hub")
	if err != nil {
		t.Fatal(err)
	}
	const want = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=***;EntityPath=hub"
	if got := cs.String(); got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		noSecret(t, fmt.Sprintf(verb, cs))
		noSecret(t, fmt.Sprintf(verb, &cs))
		noSecret(t, fmt.Sprintf(verb, struct{ C ConnectionString }{cs}))
	}
	j, err := json.Marshal(map[string]any{"c": cs})
	if err != nil || !strings.Contains(string(j), "SharedAccessKey=***") {
		t.Errorf("JSON %s, %v", j, err)
	}
	noSecret(t, string(j))

	for in, want := range map[string]string{
		"": "", key1: "***", "Endpoint=sb://ns/;SharedAccessKey" + key1: "***", ehConn + ";EntityPath=hub": want,
	} {
		if got := masked(in); got != want {
			t.Errorf("masked(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzParseConnectionString holds two promises: no panic, and no secret in an
// error or in what prints. {} in the template is where the secret goes, so the
// fuzzer may put it anywhere.
func FuzzParseConnectionString(f *testing.F) {
	for _, tmpl := range []string{
		"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey={};EntityPath=hub",
		"Endpoint=sb://ns:1/;SharedAccessSignature=SharedAccessSignature sr=x&sig={}",
		"Endpoint=sb://{}/;SharedAccessKeyName={};SharedAccessKey={};UseDevelopmentEmulator={};EntityPath={};{}={};{}",
		"{}", ";;;=", "Endpoint=sb://[::1]:x/;", "Endpoint=sb://%zz/",
	} {
		f.Add(tmpl, "abc=")
		f.Add(tmpl, "a b\x00")
	}
	const marker = "QzSECRETzQ"
	f.Fuzz(func(t *testing.T, tmpl, rest string) {
		secret := marker + rest
		s := strings.ReplaceAll(tmpl, "{}", secret)
		cs, err := ParseConnectionString(s)
		if err != nil {
			if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(marker)) {
				t.Fatalf("the error for %q quotes it: %v", s, err)
			}
			if cs != (ConnectionString{}) {
				t.Fatalf("an error comes with a value")
			}
			return
		}
		if cs.Host == "" || (cs.SharedAccessKey == "") == (cs.SharedAccessSignature == "") {
			t.Fatalf("%q is taken without an address or credentials: %s", s, cs)
		}
		// What prints is all but the key, so the key shows only where the user
		// wrote it into another part as well.
		public := cs.Endpoint + cs.SharedAccessKeyName + cs.EntityPath
		if strings.Contains(cs.SharedAccessKey+cs.SharedAccessSignature, marker) && !strings.Contains(public, marker) &&
			strings.Contains(fmt.Sprintf("%v %+v %#v %s", cs, cs, cs, masked(s)), marker) {
			t.Fatalf("%q prints its key", s)
		}
		// Parsing the masked form returns the same but for the key: nothing is
		// lost and nothing slips from one part into another.
		if cs.SharedAccessKey != "" {
			again, err := ParseConnectionString(strings.Replace(cs.String(), "=***", "=x", 1))
			again.SharedAccessKey = cs.SharedAccessKey
			if err != nil || again != cs {
				t.Fatalf("%q prints as %s, which reads as %s, %v", s, cs, again, err)
			}
		}
	})
}
