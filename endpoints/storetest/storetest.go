// Package storetest is what the tests of every endpoints.Store share: endpoints
// to put in, and the suite that a store has to pass.
package storetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
)

// Keys as services issue them: what must never be in a log or in the clear.
const (
	Key1 = "zQ9xSECRETSECRETSECRETSECRETSECRETSECRET12E="
	Key2 = "zQ9ySECRETSECRETSECRETSECRETSECRETSECRET34Q="
)

// Conn1 and Conn2 are the connection strings of Hub.
const (
	Conn1 = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + Key1
	Conn2 = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + Key2
)

// Hub returns a valid endpoint of an event hub. An empty name is none.
func Hub(name string, each ...func(*endpoints.Endpoint)) endpoints.Endpoint {
	return with(endpoints.Endpoint{
		Name: name, Type: endpoints.TypeEventHub, EventTypes: []string{endpoints.SensorChange}, Path: "hub",
		ConnectionString: Conn1, SecondaryConnectionString: Conn2,
	}, each)
}

// Device returns one of those of which a set may have one only.
func Device(name string, each ...func(*endpoints.Endpoint)) endpoints.Endpoint {
	e := Hub(name)
	e.EventTypes = []string{endpoints.DeviceMessage}
	e.ConnectionString, e.SecondaryConnectionString = Conn1+";EntityPath=hub", ""
	return with(e, each)
}

// Grid returns a valid endpoint of Event Grid.
func Grid(name string, each ...func(*endpoints.Endpoint)) endpoints.Endpoint {
	return with(endpoints.Endpoint{
		Name: name, Type: endpoints.TypeEventGrid, EventTypes: []string{endpoints.SpaceChange}, Path: "topic.westus-1.eventgrid.azure.net",
		ConnectionString: Key1, SecondaryConnectionString: Key2,
	}, each)
}

func with(e endpoints.Endpoint, each []func(*endpoints.Endpoint)) endpoints.Endpoint {
	for _, f := range each {
		f(&e)
	}
	return e
}

// Add returns an edit for Store.Change that appends e.
func Add(e endpoints.Endpoint) func([]endpoints.Endpoint) ([]endpoints.Endpoint, error) {
	return func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) { return append(set, e), nil }
}

// Many is how many endpoints an instance is made for.
const Many = 10_000

// Hubs returns endpoints with names of their own, the first of which has a number.
func Hubs(first, n int) []endpoints.Endpoint {
	set := make([]endpoints.Endpoint, n)
	for i := range set {
		set[i] = Hub(fmt.Sprintf("endpoint %d", first+i))
	}
	return set
}

// BenchmarkChange measures the smallest change there is, in a store of Many
// endpoints.
func BenchmarkChange(b *testing.B, s endpoints.Store) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, err := s.Change(b.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			set[i%Many].Path = fmt.Sprintf("hub-%d", i)
			return set, nil
		})
		Must(b, err)
	}
}

// Names returns the names of a set, with spaces between.
func Names(set []endpoints.Endpoint) string {
	all := make([]string, len(set))
	for i, e := range set {
		all[i] = e.Name
	}
	return strings.Join(all, " ")
}

// NoSecret fails a test if a text has a part of a key in it.
func NoSecret(t testing.TB, where, text string) {
	t.Helper()
	if strings.Contains(text, "SECRET") {
		t.Errorf("%s shows a key: %s", where, text)
	}
}

// Must ends a test that can't go on.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// AgeKey returns a new secret key as a line of endpoints.secretsKeyFile.
func AgeKey(t testing.TB) string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	Must(t, err)
	return id.String()
}

// Keyring returns the keyring of a file with these lines.
func Keyring(t testing.TB, lines ...string) *secrets.Keyring {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	Must(t, os.WriteFile(path, []byte("# made for a test\n\n"+strings.Join(lines, "\n")), 0o600))
	k, warning, err := secrets.Load(path)
	if err != nil || warning != "" {
		t.Fatalf("%q, %v", warning, err)
	}
	return k
}
