package outbound

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	type lists struct{ allow, deny []string }
	none := lists{}
	tests := map[string]struct {
		lists    lists
		loopback bool
		host     string
		address  string // that the name has; "" if host is one
		refused  string // a part of the error; "" is allowed
	}{
		"a public one":                       {none, false, "ns.servicebus.windows.net", "20.1.2.3", ""},
		"a private endpoint":                 {none, false, "ns.servicebus.windows.net", "10.1.2.3", ""},
		"loopback":                           {none, false, "127.0.0.1", "", "127.0.0.0/8 is loopback, and not among endpoints.hosts.allow"},
		"loopback, another of it":            {none, false, "127.9.9.9", "", "loopback"},
		"loopback by a name":                 {none, false, "evil.example", "127.0.0.1", "evil.example at 127.0.0.1 is not allowed"},
		"loopback, IPv6":                     {none, false, "::1", "", "::1/128 is loopback"},
		"loopback, mapped":                   {none, false, "::ffff:127.0.0.1", "", "loopback"},
		"loopback, in development":           {none, true, "127.0.0.1", "", ""},
		"loopback, IPv6, in development":     {none, true, "localhost", "::1", ""},
		"loopback, listed":                   {lists{allow: []string{"127.0.0.0/8"}}, false, "127.0.0.1", "", ""},
		"loopback, by its name alone":        {lists{allow: []string{"localhost"}}, false, "localhost", "127.0.0.1", "loopback"},
		"loopback, denied":                   {lists{deny: []string{"127.0.0.1"}}, true, "127.0.0.1", "", "endpoints.hosts.deny has 127.0.0.1/32"},
		"unspecified":                        {none, true, "0.0.0.0", "", "this machine"},
		"unspecified, IPv6":                  {none, true, "::", "", "this machine"},
		"metadata":                           {none, true, "169.254.169.254", "", "169.254.0.0/16 is link-local"},
		"metadata by a name":                 {none, true, "metadata.google.internal", "169.254.169.254", "link-local"},
		"metadata, mapped":                   {none, true, "x.example", "::ffff:169.254.169.254", "link-local"},
		"metadata behind NAT64":              {none, true, "x.example", "64:ff9b::a9fe:a9fe", "link-local"},
		"metadata, IPv6":                     {none, true, "fd00:ec2::254", "", "metadata"},
		"wire server":                        {none, true, "168.63.129.16", "", "Azure's own"},
		"link-local, with a zone":            {none, true, "x.example", "fe80::1%eth0", "link-local"},
		"link-local, listed":                 {lists{allow: []string{"169.254.7.0/24"}}, false, "169.254.7.1", "", ""},
		"a public one behind NAT64":          {none, false, "ns.servicebus.windows.net", "64:ff9b::1401:203", ""},
		"a name that is listed":              {lists{allow: []string{"NS.servicebus.windows.net"}}, false, "ns.servicebus.windows.net", "20.1.2.3", ""},
		"a name below one":                   {lists{allow: []string{"*.servicebus.windows.net"}}, false, "ns.servicebus.windows.net.", "20.1.2.3", ""},
		"the domain itself is not below it":  {lists{allow: []string{"*.windows.net"}}, false, "windows.net", "20.1.2.3", "not among endpoints.hosts.allow"},
		"a name that ends alike":             {lists{allow: []string{"*.windows.net"}}, false, "evilwindows.net", "20.1.2.3", "not among endpoints.hosts.allow"},
		"a network that is listed":           {lists{allow: []string{"10.0.0.0/8"}}, false, "x.example", "10.200.0.1", ""},
		"a network that is not listed":       {lists{allow: []string{"10.0.0.0/8"}}, false, "x.example", "11.0.0.1", "neither is among endpoints.hosts.allow"},
		"a name or a network":                {lists{allow: []string{"10.0.0.0/8", "x.example"}}, false, "x.example", "11.0.0.1", ""},
		"a listed name in a denied network":  {lists{allow: []string{"*.example"}, deny: []string{"10.0.0.0/8"}}, false, "x.example", "10.0.0.1", "endpoints.hosts.deny has 10.0.0.0/8"},
		"a denied name in a listed network":  {lists{allow: []string{"10.0.0.0/8"}, deny: []string{"*.example"}}, false, "x.example", "10.0.0.1", "endpoints.hosts.deny has *.example"},
		"a denied network, mapped":           {lists{deny: []string{"::ffff:10.0.0.0/104"}}, false, "x.example", "10.0.0.1", "endpoints.hosts.deny has 10.0.0.0/8"},
		"a denied network behind NAT64":      {lists{deny: []string{"10.0.0.0/8"}}, false, "x.example", "64:ff9b::a00:1", "endpoints.hosts.deny has 10.0.0.0/8"},
		"a denied name, in other characters": {lists{deny: []string{"x.example"}}, false, "X.Example.", "10.0.0.1", "endpoints.hosts.deny has x.example"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := ParseHosts(test.lists.allow, test.lists.deny, test.loopback)
			if err != nil {
				t.Fatal(err)
			}
			err = h.checkName(test.host)
			if err == nil && test.address != "" {
				err = h.checkResolved(test.host, net.JoinHostPort(test.address, "443"))
			}
			if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused) || !strings.Contains(err.Error(), strings.TrimPrefix(test.host, "::ffff:"))) {
				t.Errorf("got %v, want %q", err, test.refused)
			}
		})
	}
}

// What can be told of a host that somebody else resolves.
func TestHostsBehindProxy(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		allow, deny []string
		host        string
		refused     string
	}{
		"anywhere":                      {nil, nil, "x.example", ""},
		"metadata":                      {nil, nil, "169.254.169.254", "link-local"},
		"metadata, of two numbers":      {nil, nil, "169.16689662", "write an address as"},
		"metadata, of one number":       {nil, nil, "2852039166", "write an address as"},
		"metadata, in octal":            {nil, nil, "0251.0376.0251.0376", "write an address as"},
		"metadata, in hexadecimal":      {nil, nil, "0xA9FEA9FE", "write an address as"},
		"metadata, with a dot":          {nil, nil, "169.254.169.254.", "write an address as"},
		"a name with a number":          {nil, nil, "0x7.ns-7.topic7", ""},
		"a listed name":                 {[]string{"x.example", "10.0.0.0/8"}, nil, "x.example", ""},
		"a denied name":                 {nil, []string{"x.example"}, "x.example", "endpoints.hosts.deny"},
		"its network may be the listed": {[]string{"10.0.0.0/8"}, nil, "x.example", "behind a proxy"},
		"a listed address":              {[]string{"10.0.0.0/8"}, nil, "10.0.0.1", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := ParseHosts(test.allow, test.deny, false)
			if err != nil {
				t.Fatal(err)
			}
			err = h.checkBehindProxy(test.host)
			if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
				t.Errorf("got %v, want %q", err, test.refused)
			}
		})
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for rule, ok := range map[string]bool{
		"a.example": true, "*.example": true, "A.Example.": true, "localhost": true, "my_service": true,
		"10.1.2.3": true, "10.0.0.0/8": true, "fd00::/8": true, "::1": true,
		"": false, "*": false, "a.*.example": false, "*a.example": false, "a..b": false, "10.0.0": false, "10.0.0.0/33": false,
		"https://a.example": false, "a.example:443": false, "a b": false, "fe80::1%eth0": false, "010.1.2.3": false,
	} {
		if err := CheckRule(rule); (err == nil) != ok {
			t.Errorf("%q: %v", rule, err)
		}
	}
	if _, err := ParseHosts([]string{"a.example", "a b"}, nil, false); err == nil || !strings.HasPrefix(err.Error(), "endpoints.hosts.allow[1] must be") {
		t.Errorf("got %v", err)
	}
}

// The address that is checked is the one that is connected to.
func TestDialChecksTheResolvedAddress(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for _, test := range []struct {
		host    string
		allow   bool
		refused string
	}{
		{"localhost", true, ""},
		{"127.0.0.1", true, ""},
		{"localhost", false, "localhost at"},
		{"127.0.0.1", false, "127.0.0.1 is not allowed"},
	} {
		hosts, err := ParseHosts(nil, nil, test.allow)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		conn, err := New(hosts, nil).Dial(ctx, net.JoinHostPort(test.host, port))
		cancel()
		switch {
		case err == nil:
			_ = conn.Close()
			if test.refused != "" {
				t.Errorf("%s was connected to", test.host)
			}
		case test.refused == "" || !strings.Contains(err.Error(), test.refused):
			t.Errorf("%s: %v, want %q", test.host, err, test.refused)
		}
	}
}
