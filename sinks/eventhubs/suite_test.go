package eventhubs_test

import (
	"testing"

	"go.uber.org/goleak"

	"twinegress/endpoints"
	"twinegress/sinks/eventhubs"
	"twinegress/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var service = sinktest.Service{Type: endpoints.TypeEventHub, Opener: eventhubs.Opener}

func TestErrors(t *testing.T) { sinktest.RunErrors(t, service) }

func TestWords(t *testing.T) { sinktest.RunWords(t, service) }

func TestMatrix(t *testing.T) { sinktest.Run(t, service) }

func TestShrunkHub(t *testing.T) { sinktest.RunShrunk(t, service) }

func TestHostile(t *testing.T) { sinktest.RunHostile(t, service) }

func TestHanging(t *testing.T) { sinktest.RunHanging(t, service) }

func FuzzPeer(f *testing.F)         { sinktest.FuzzPeer(f, service) }
func TestOnePartition(t *testing.T) { sinktest.RunOnePartition(t, service) }
