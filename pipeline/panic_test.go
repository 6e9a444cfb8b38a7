package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// panics emits one chunk and returns the error that ends the run.
func panics(t *testing.T, p *Pipeline, value string, set ...endpoints.Endpoint) string {
	t.Helper()
	p.router.apply(set)
	stopped := make(chan error, 1)
	p.stop = func(cause error) { stopped <- cause }
	c := event.NewChunk(topic, 3, 1, len(value), func(*event.Chunk) { t.Error("the chunk was settled") })
	c.Add(7, 0, 0, nil, []byte(value))
	p.emit(c)
	p.workers.Wait()
	p.router.routes.users.Wait() // the table is released
	return (<-stopped).Error()
}

// A panic over an event is reported and ends the run; the stream alone would
// keep it, and the chunk be stuck in silence.
func TestPanicIsRescued(t *testing.T) {
	for name, inject := range map[string]func(*Pipeline){
		"preparing":   func(p *Pipeline) { p.jobs.New = func() any { return nil } },
		"dispatching": func(p *Pipeline) { p.letters = nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := bare()
			inject(p)
			got := panics(t, p, "no JSON: a dead letter")
			if !strings.Contains(got, "BUG: "+name+" a chunk of twins/3, offsets 7 to 7") {
				t.Errorf("the run ends with %s", got)
			}
		})
	}
}

// So is one over an event that is read for endpoints that are behind.
func TestPanicBehindIsRescued(t *testing.T) {
	p := bare()
	p.jobs.New = func() any { return nil }
	p.router.apply(nil)
	var cause error
	p.stop = func(err error) { cause = err }
	c := event.NewChunk(topic, 3, 1, 10, (*event.Chunk).Free)
	c.Add(7, 0, 0, nil, []byte("no JSON"))
	r := &recovery{pipeline: p}
	if _, ok := r.prepare(c, false); ok || cause == nil || !strings.Contains(cause.Error(), "BUG: preparing a chunk of twins/3, offsets 7 to 7") {
		t.Errorf("prepared: %t; the run ends with %v", ok, cause)
	}
	p.router.routes.users.Wait() // the table is released
	c.Settle(1)
}

// What the panic is about may be an endpoint: its keys are not shown.
func TestPanicShowsNoKey(t *testing.T) {
	const key, sig = "cHJpbWFyeSBrZXk=", "c2lnbmF0dXJl"
	keyed, signed := endpoint("keyed", endpoints.SensorChange), endpoint("signed", endpoints.SensorChange)
	keyed.ConnectionString = "Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=" + key
	signed.ConnectionString = "Endpoint=sb://ns.example.net/;SharedAccessSignature=SharedAccessSignature sr=ns&sig=" + sig + "&se=1&skn=send"
	set := []endpoints.Endpoint{keyed, signed}
	for name, value := range map[string]any{
		"error":    fmt.Errorf("not there: %+v", signed),
		"snapshot": sinks.Snapshot{Endpoint: keyed},
		"routes":   map[string][]endpoints.Endpoint{endpoints.SensorChange: set},
	} {
		t.Run(name, func(t *testing.T) {
			p := bare()
			p.jobs.New = func() any { panic(value) }
			got := panics(t, p, `{"eventType":"SensorChange"}`, set...)
			if !strings.HasPrefix(got, "BUG: preparing") || !strings.Contains(got, "signed") && !strings.Contains(got, "keyed") {
				t.Errorf("the panic's value is not shown: %s", got)
			}
			for _, secret := range []string{key, sig} {
				if strings.Contains(got, secret) {
					t.Errorf("a secret shows: %s", got)
				}
			}
		})
	}
}
