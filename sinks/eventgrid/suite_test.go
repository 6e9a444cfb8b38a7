package eventgrid_test

import (
	"testing"

	"twinegress/endpoints"
	"twinegress/sinks/eventgrid"
	"twinegress/sinks/sinktest"
)

var service = sinktest.Service{Type: endpoints.TypeEventGrid, Opener: eventgrid.Opener}

func TestErrors(t *testing.T) { sinktest.RunErrors(t, service) }

func TestWords(t *testing.T) { sinktest.RunWords(t, service) }

func TestMatrix(t *testing.T) { sinktest.Run(t, service) }
