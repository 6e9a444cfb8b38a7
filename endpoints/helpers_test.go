package endpoints

import (
	"errors"
	"strings"
	"testing"
)

// A realistic key: base64 of 32 bytes, and one that must never show up.
const (
	key1 = "zQ9xSECRETSECRETSECRETSECRETSECRETSECRET12E="
	key2 = "zQ9ySECRETSECRETSECRETSECRETSECRETSECRET34Q="
)

const (
	ehConn  = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + key1
	ehConn2 = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + key2
)

// hub is a valid endpoint, to be changed by each.
func hub(each ...func(*Endpoint)) Endpoint {
	e := Endpoint{
		Type: TypeEventHub, EventTypes: []string{SensorChange}, Path: "hub",
		ConnectionString: ehConn, SecondaryConnectionString: ehConn2,
	}
	for _, f := range each {
		f(&e)
	}
	return e
}

func grid(each ...func(*Endpoint)) Endpoint {
	e := Endpoint{
		Type: TypeEventGrid, EventTypes: []string{SpaceChange}, Path: "topic.westus-1.eventgrid.azure.net",
		ConnectionString: key1, SecondaryConnectionString: key2,
	}
	for _, f := range each {
		f(&e)
	}
	return e
}

func named(name string) func(*Endpoint) { return func(e *Endpoint) { e.Name = name } }

// wantViolations compares err with field: part-of-message pairs, in any order.
func wantViolations(t *testing.T, err error, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Fatalf("unexpected error:\n%v", err)
		}
		return
	}
	var v ValidationErrors
	if !errors.As(err, &v) {
		t.Fatalf("error %v (%T), want ValidationErrors %q", err, err, want)
	}
	if len(v) != len(want) {
		t.Errorf("%d violations, want %d %q:\n%v", len(v), len(want), want, v)
	}
	for _, w := range want {
		field, msg, _ := strings.Cut(w, ": ")
		found := false
		for _, one := range v {
			found = found || one.Field == field && strings.Contains(one.Message, msg)
		}
		if !found {
			t.Errorf("no violation %q in:\n%v", w, v)
		}
	}
	noSecret(t, err.Error())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noSecret(t *testing.T, s string) {
	t.Helper()
	if strings.Contains(s, "SECRET") {
		t.Errorf("a key shows: %s", s)
	}
}
