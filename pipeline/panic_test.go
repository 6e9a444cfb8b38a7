package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// A panic on the way of an event is said and ends the run; the stream alone
// would keep it, and the chunk be stuck in silence.
func TestPanicIsRescued(t *testing.T) {
	for name, broken := range map[string]func(*Pipeline){
		"preparing":   func(p *Pipeline) { p.jobs.New = func() any { return nil } },
		"dispatching": func(p *Pipeline) { p.DeadLetters = nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := bare()
			broken(p)
			p.router.apply(nil)
			stopped := make(chan error, 1)
			p.stop = func(cause error) { stopped <- cause }
			c := event.NewChunk(topic, 3, 1, 10, func(*event.Chunk) { t.Error("the chunk was settled") })
			c.Add(7, 0, 0, nil, []byte("no JSON: a dead letter"))
			p.emit(c)
			p.workers.Wait()
			p.router.routes.users.Wait() // the table is let go of
			if err := <-stopped; !strings.Contains(err.Error(), "BUG: "+name+" a chunk of twins/3, offsets 7 to 7") {
				t.Errorf("the run ends with %v", err)
			}
		})
	}
}

// What the panic is about may be an endpoint: its keys are not said.
func TestPanicShowsNoKey(t *testing.T) {
	const key, sig = "cHJpbWFyeSBrZXk=", "c2lnbmF0dXJl"
	keyed, signed := endpoint("keyed", endpoints.SensorChange), endpoint("signed", endpoints.SensorChange)
	keyed.ConnectionString = "Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=" + key
	signed.ConnectionString = "Endpoint=sb://ns.example.net/;SharedAccessSignature=SharedAccessSignature sr=ns&sig=" + sig + "&se=1&skn=send"
	set := []endpoints.Endpoint{keyed, signed}
	for name, value := range map[string]any{
		"endpoint": keyed,
		"pointer":  &signed,
		"list":     set,
		"error":    fmt.Errorf("not there: %+v", signed),
		"snapshot": sinks.Snapshot{Endpoint: keyed},
		"routes":   map[string][]endpoints.Endpoint{endpoints.SensorChange: set},
	} {
		t.Run(name, func(t *testing.T) {
			p := bare()
			p.jobs.New = func() any { panic(value) }
			p.router.apply(set)
			stopped := make(chan error, 1)
			p.stop = func(cause error) { stopped <- cause }
			c := event.NewChunk(topic, 3, 1, 10, func(*event.Chunk) { t.Error("the chunk was settled") })
			c.Add(7, 0, 0, nil, []byte(`{"eventType":"SensorChange"}`))
			p.emit(c)
			p.workers.Wait()
			p.router.routes.users.Wait()
			said := (<-stopped).Error()
			if !strings.HasPrefix(said, "BUG: preparing") || !strings.Contains(said, "signed") && !strings.Contains(said, "keyed") {
				t.Errorf("the panic's value is not said: %s", said)
			}
			for _, secret := range []string{key, sig} {
				if strings.Contains(said, secret) {
					t.Errorf("a secret shows: %s", said)
				}
			}
		})
	}
}
