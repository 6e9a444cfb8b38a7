package endpoints_test

import (
	"fmt"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

func TestParseConnectionString(t *testing.T) {
	const base, key1 = storetest.Conn1, storetest.Key1
	full := endpoints.ConnectionString{
		Endpoint: "sb://ns.servicebus.windows.net/", Host: "ns.servicebus.windows.net",
		SharedAccessKeyName: "send", SharedAccessKey: key1,
	}
	with := func(f func(*endpoints.ConnectionString)) endpoints.ConnectionString {
		cs := full
		f(&cs)
		return cs
	}
	for name, tc := range map[string]struct {
		in   string
		want endpoints.ConnectionString
		err  string // part of the message
	}{
		"as the portal shows it": {in: base, want: full},
		"final semicolon":        {in: base + ";", want: full},
		"entity path":            {in: base + ";EntityPath=hub", want: with(func(c *endpoints.ConnectionString) { c.EntityPath = "hub" })},
		"nested entity":          {in: base + ";EntityPath=a/b", want: with(func(c *endpoints.ConnectionString) { c.EntityPath = "a/b" })},
		"other case, other order": {
			in:   "SHAREDACCESSKEY=" + key1 + ";sharedaccesskeyname=send;endpoint=sb://ns.servicebus.windows.net/",
			want: full,
		},
		"host in capitals, no slash": {
			in:   strings.Replace(base, "sb://ns.servicebus.windows.net/", "sb://NS.servicebus.windows.net", 1),
			want: with(func(c *endpoints.ConnectionString) { c.Endpoint = "sb://NS.servicebus.windows.net" }),
		},
		"emulator with a port": {
			in: "Endpoint=sb://127.0.0.1:5673;SharedAccessKeyName=k;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;",
			want: endpoints.ConnectionString{
				Endpoint: "sb://127.0.0.1:5673", Host: "127.0.0.1:5673", SharedAccessKeyName: "k",
				SharedAccessKey: "SAS_KEY_VALUE", UseDevelopmentEmulator: true,
			},
		},
		"IPv6": {
			in:   strings.Replace(base, "sb://ns.servicebus.windows.net/", "sb://[::1]:5671/", 1),
			want: with(func(c *endpoints.ConnectionString) { c.Endpoint, c.Host = "sb://[::1]:5671/", "[::1]:5671" }),
		},
		"signature": {
			in: "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessSignature=SharedAccessSignature sr=ns&sig=" + key1 + "&se=1&skn=send",
			want: with(func(c *endpoints.ConnectionString) {
				c.SharedAccessKeyName, c.SharedAccessKey = "", ""
				c.SharedAccessSignature = "SharedAccessSignature sr=ns&sig=" + key1 + "&se=1&skn=send"
			}),
		},
		"setting of an old library": {in: base + ";TransportType=Amqp", want: full},

		// Each mistake by itself is in violationrows_test.go.
		"empty":                {in: "", err: "Endpoint is missing; SharedAccessKeyName and SharedAccessKey are missing"},
		"separator missing":    {in: "Endpoint=sb://ns/;SharedAccessKeyName=sendSharedAccessKey=" + key1, err: "part 2: SharedAccessKeyName must"},
		"equals sign missing":  {in: "Endpoint=sb://ns/;SharedAccessKeyName=send;SharedAccessKey" + key1, err: "part 3: unknown name"},
		"path in the endpoint": {in: strings.Replace(base, ".net/", ".net/hub", 1), err: "part 1: Endpoint must be sb://host/"},
		"user in the endpoint": {in: strings.Replace(base, "sb://", "sb://SECRET:SECRET@", 1), err: "part 1: Endpoint must be sb://host/"},
		"an address":           {in: strings.Replace(base, "ns.servicebus.windows.net", "10.1.2.3:5671", 1), want: endpoints.ConnectionString{Endpoint: "sb://10.1.2.3:5671/", Host: "10.1.2.3:5671", SharedAccessKeyName: "send", SharedAccessKey: key1}},
		"everything that is wrong": {
			in: "Endpoint=http://ns/;SharedAccessKeyName=;SharedAccessKey=a b;EntityPath=x y;Foo=1;UseDevelopmentEmulator=maybe;bare",
			err: "part 1: Endpoint must start with sb://; part 2: SharedAccessKeyName must be a policy's name, without spaces or =; part 3: SharedAccessKey must not have spaces; " +
				"part 4: EntityPath must have no spaces and no invisible characters; part 5: unknown name; known are Endpoint, SharedAccessKeyName, SharedAccessKey, SharedAccessSignature, EntityPath and UseDevelopmentEmulator; " +
				"part 6: UseDevelopmentEmulator must be true or false; part 7 is not of the form Name=value",
		},
		"wrong, and something missing": {in: "Endpoint=http://ns/", err: "part 1: Endpoint must start with sb://; SharedAccessKeyName and SharedAccessKey are missing"},
		"space before a name":          {in: strings.Replace(base, ";", "; ", 1), want: full},
		"over several lines":           {in: "\n  " + strings.ReplaceAll(base, ";", ";\r\n\t") + " ;\n", want: full},
		"space around = and a no-break one": {
			in: strings.NewReplacer("=sb", " =\u00a0sb", "KeyName=", "KeyName = ", "AccessKey=", "AccessKey = ").Replace(base), want: full,
		},
		"space in a name": {in: base + ";Entity Path=hub", err: "part 4: its name has a space or an invisible character in it"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := endpoints.ParseConnectionString(tc.in)
			if tc.err == "" {
				// %+v would mask what differs.
				if err != nil || got != tc.want {
					t.Fatalf("got %s (key %q, host %q), %v; want %s", got, got.SharedAccessKey, got.Host, err, tc.want)
				}
				storetest.NoSecret(t, "the text", got.String())
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if got != (endpoints.ConnectionString{}) {
				t.Errorf("an error comes with a value: %s", got)
			}
			storetest.NoSecret(t, "the error", err.Error())
		})
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
		cs, err := endpoints.ParseConnectionString(s)
		if err != nil {
			if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(marker)) {
				t.Fatalf("the error for %q quotes it: %v", s, err)
			}
			if cs != (endpoints.ConnectionString{}) {
				t.Fatalf("an error comes with a value")
			}
			return
		}
		if cs.Host == "" || (cs.SharedAccessKey == "") == (cs.SharedAccessSignature == "") {
			t.Fatalf("%q is taken without an address or credentials: %s", s, cs)
		}
		// What prints is all but the key, so the key shows only where the user
		// wrote it into another part as well.
		masked := endpoints.Endpoint{Type: endpoints.TypeEventHub, ConnectionString: s}.Document().ConnectionString
		public := cs.Endpoint + cs.SharedAccessKeyName + cs.EntityPath
		if strings.Contains(cs.SharedAccessKey+cs.SharedAccessSignature, marker) && !strings.Contains(public, marker) &&
			strings.Contains(fmt.Sprintf("%v %+v %#v %s", cs, cs, cs, masked), marker) {
			t.Fatalf("%q prints its key", s)
		}
		// Parsing the masked form returns the same but for the key: nothing is
		// lost and nothing slips from one part into another.
		if cs.SharedAccessKey != "" {
			again, err := endpoints.ParseConnectionString(strings.Replace(cs.String(), "=***", "=x", 1))
			again.SharedAccessKey = cs.SharedAccessKey
			if err != nil || again != cs {
				t.Fatalf("%q prints as %s, which reads as %s, %v", s, cs, again, err)
			}
		}
	})
}
