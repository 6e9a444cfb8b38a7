package endpoints_test

import (
	"errors"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// FuzzDecode holds, of any body, record and file: no panic; a short error, of
// at most twenty mistakes and without a stored secret; and no mask that has a stored
// key sent to another host, or by another policy.
func FuzzDecode(f *testing.F) {
	for _, v := range violations() {
		body := v.text
		if body == "" {
			body = v.good.with(v.changes).body(f)
		}
		f.Add([]byte(body))
	}
	for _, good := range []fields{hub, device, bus, grid, identityHub, identityGrid} {
		f.Add([]byte(good.body(f)))
		f.Add([]byte("[" + good.body(f) + "," + good.body(f) + "]"))
	}
	positions := hub.with(fields{"recovery": "catchUp", "enabled": false, "startAt": "earliest"})
	for _, more := range []fields{{}, {"seekTo": "earliest"}, {"seekTo": "cancel", "seekAt": "2026-01-31T08:00:00+01:00"}, {"startAt": "9999-12-31T23:59:59-01:00"}} {
		f.Add([]byte(positions.with(more).body(f)))
		f.Add([]byte("[" + positions.with(more).body(f) + "]"))
	}
	const masked = namespace + ";SharedAccessKeyName=send;SharedAccessKey=***"
	f.Add([]byte(hub.with(fields{"connectionString": masked, "secondaryConnectionString": "***"}).body(f)))
	f.Add([]byte(hub.with(fields{"connectionString": " Endpoint = sb://evil ; " + masked}).body(f)))
	f.Add([]byte(hub.with(fields{"connectionString": namespace + ";SharedAccessSignature=***"}).body(f)))
	f.Add([]byte(grid.with(fields{"connectionString": "***", "path": "topic.westus-1.eventgrid.azure.net"}).body(f)))

	signed := storetest.Hub("", func(e *endpoints.Endpoint) {
		e.ConnectionString, e.SecondaryConnectionString = namespace+";SharedAccessSignature=SharedAccessSignature sr=a&sig="+storetest.Key1, ""
	})
	stored := []endpoints.Endpoint{storetest.Hub("hub"), storetest.Grid("grid"), signed}
	f.Fuzz(func(t *testing.T, body []byte) {
		own := strings.Contains(string(body), "SECRET") // the client's own words may have the marker
		refused := func(err error) bool {
			if err == nil {
				return false
			}
			wrong, ok := errors.AsType[endpoints.ValidationErrors](err)
			if !ok || len(wrong) > 21 || len(err.Error()) > 32<<10 { // a reply has it twice
				t.Fatalf("%d mistakes, %d bytes: %.500v", len(wrong), len(err.Error()), err)
			}
			if !own && strings.Contains(err.Error(), "SECRET") {
				t.Fatalf("an error shows a key: %v", err)
			}
			return true
		}
		for _, was := range stored {
			e, err := endpoints.Decode(body, was, endpoints.Options{AllowDevelopmentEmulator: true})
			if refused(err) || own {
				continue
			}
			for _, key := range []string{e.ConnectionString, e.SecondaryConnectionString} {
				if !strings.Contains(key, "SECRET") {
					continue
				}
				if e.Type.AMQP() != was.Type.AMQP() || e.Host() != was.Host() {
					t.Fatalf("a stored key of %s goes to %s", was, e)
				}
				if !e.Type.AMQP() {
					continue
				}
				is, err := endpoints.ParseConnectionString(key)
				before, _ := endpoints.ParseConnectionString(was.ConnectionString)
				if err != nil || is.Host != before.Host || is.SharedAccessKeyName != before.SharedAccessKeyName || is.UseDevelopmentEmulator {
					t.Fatalf("a stored key of %s goes elsewhere, or in the clear: %s, %v", was, is, err)
				}
			}
		}
		open := func(s, _ string) (string, error) {
			if len(s)%2 == 1 {
				return "", errors.New("can't be opened")
			}
			return s, nil
		}
		if e, err := endpoints.DecodeStored(body, open, endpoints.Options{}); !refused(err) {
			text, err := endpoints.Encode(e, nil)
			storetest.Must(t, err)
			again, err := endpoints.DecodeStored(text, nil, endpoints.Options{})
			if err != nil || !again.Equal(e) {
				t.Fatalf("%s is read again as %s, %v", e, again, err)
			}
		}
		set, err := endpoints.DecodeSet(body, open, endpoints.Options{})
		if refused(err) {
			return
		}
		text, err := endpoints.EncodeSet(set, nil)
		storetest.Must(t, err)
		again, err := endpoints.DecodeSet(text, nil, endpoints.Options{})
		if err != nil || len(again) != len(set) {
			t.Fatalf("%d are read again as %d, %v", len(set), len(again), err)
		}
	})
}
