package sinktest

import (
	"context"
	"strings"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
)

// moveToNowhere changes the endpoint to a host that doesn't exist, and moveBack
// back again: names under .invalid never resolve (RFC 2606).
func (r *rig) moveToNowhere() {
	r.t.Helper()
	e := r.service.endpoint(r.emulator)
	if r.service.isGrid() {
		e.Path = "twins.invalid"
	} else {
		elsewhere := func(c string) string { return strings.Replace(c, r.emulator.AMQPAddr(), "twins.invalid", 1) }
		e.ConnectionString, e.SecondaryConnectionString = elsewhere(e.ConnectionString), elsewhere(e.SecondaryConnectionString)
	}
	r.update(e)
}

func (r *rig) moveBack() {
	r.t.Helper()
	r.update(r.service.endpoint(r.emulator))
}

// update changes the endpoint, as the API does.
func (r *rig) update(e endpoints.Endpoint) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Update(e)(ctx); err != nil {
		r.t.Errorf("closing the old way: %v", err)
	}
}

// wrongCertificate puts a service with a certificate of another CA in the place
// of the real one, and rightCertificate the real one back.
func (r *rig) wrongCertificate() {
	r.t.Helper()
	target, address := emulator.Namespace, r.emulator.AMQPAddr()
	if r.service.isGrid() {
		target, address = entity, r.emulator.EventGridHost(entity)
	}
	if err := r.emulator.SetFault(target, emulator.Fault{Down: true}); err != nil {
		r.t.Fatal(err)
	}
	r.impostor = r.service.start(r.t, r.keys, func(c *emulator.Config) {
		if r.service.isGrid() {
			c.EventGridTopics[0].Listen = address
			return
		}
		c.AMQPTLS, c.AMQPListen = true, address
	})
}

func (r *rig) rightCertificate() {
	r.t.Helper()
	if err := r.impostor.Close(); err != nil {
		r.t.Error(err)
	}
	target := emulator.Namespace
	if r.service.isGrid() {
		target = entity
	}
	r.clear(target)
}

// tooLarge is a text that makes an event larger than the service takes.
func (r *rig) tooLarge() string {
	if r.service.isGrid() {
		return strings.Repeat("x", emulator.GridMaxBytes)
	}
	return strings.Repeat("x", maxMessage)
}
