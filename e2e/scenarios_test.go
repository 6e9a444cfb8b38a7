package e2e

import (
	"syscall"
	"testing"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
)

// scenario is what both brokers have to show.
type scenario struct {
	name       string
	partitions int // of the ingest topic
	run        func(*harness)
	protocols  bool // over a real Kafka with each protocol
	alone      bool // measures how soon something happens: not beside others
	services   func(*emulator.Config)
	kafka      bool // over a real Kafka only: kfake doesn't do it, or it takes long
}

var scenarios = []scenario{
	{name: "samples", partitions: 4, run: samples, protocols: true},
	{name: "bad input", partitions: 1, run: badInput},
	{name: "order", partitions: 6, run: order},
	{name: "outside", partitions: 2, run: outside},
	{name: "filters", partitions: 4, run: filters},

	{name: "killed", partitions: 4, run: restarts(syscall.SIGKILL), protocols: true},
	{name: "stopped", partitions: 4, run: restarts(syscall.SIGTERM), protocols: true},
	{name: "endpoints file followed", partitions: 4, run: fileFollowed},
	{name: "failures stay where they are", partitions: 2, run: failuresStay},
	{name: "a partition of a hub is down", partitions: 8, run: partitionDown},
	{name: "conservation", partitions: 6, run: conservation},
	{name: "slow endpoint of few events holds back", partitions: 8, run: slowOfFew("block")},
	{name: "slow endpoint of few events drops", partitions: 8, run: slowOfFew("drop")},

	{name: "documented bodies with curl", partitions: 2, run: documentedBodies, services: documentedServices, alone: true},
	{name: "new keys and retry end a back-off", partitions: 1, run: endsOfBackOff, alone: true},
	{name: "delete drains", partitions: 4, run: deleteDrains},
	{name: "many endpoints", partitions: 4, run: manyEndpoints, services: manyEndpointsServices},
	{name: "endpoints in a topic", partitions: 4, run: endpointsInTopic, alone: true},
	{name: "three copies as one", partitions: 6, run: threeCopies, alone: true},
	{name: "endpoints through kills", partitions: 1, run: endpointsThroughKills},

	{name: "catches up", partitions: behindPartitions, run: catchesUp, protocols: true},
	{name: "copies are killed while endpoints are behind", partitions: behindPartitions, run: killedBehind, protocols: true},
	{name: "copies are restarted while endpoints are behind", partitions: behindPartitions, run: rolledBehind, protocols: true},
	{name: "copies join and leave while endpoints are behind", partitions: behindPartitions, run: rebalancedBehind, protocols: true},
	{name: "slow endpoint catches up", partitions: behindPartitions, run: slowCatchesUp, alone: true},
	{name: "retention takes what an endpoint has not got", partitions: behindPartitions, run: retentionBehind},
	{name: "paused and resumed", partitions: behindPartitions, run: pausedAndResumed},
	{name: "seek, catching up", partitions: 4, run: seeks("catchUp"), protocols: true},
	{name: "seek, dropping", partitions: 4, run: seeks("drop")},
	{name: "seek cancelled", partitions: 2, run: seekCancelled},
	{name: "starts in the past", partitions: 4, run: startsInThePast},
	{name: "deleted while behind", partitions: behindPartitions, run: deletedBehind},

	{name: "replay of what was dropped", partitions: 3, run: replayOfDropped},
	{name: "drops not kept unasked", partitions: 2, run: dropsNotKept},
	{name: "replay of a refused event", partitions: 1, run: replayOfRefused},
	{name: "replay of a selection", partitions: 1, run: replaySelections},
	{name: "replay of arrays", partitions: 1, run: replayOfArrays},
	{name: "replayed are the same", partitions: 4, run: replayedAreTheSame},
	{name: "replay interrupted", partitions: 4, run: replayEnds(syscall.SIGINT, 1)},
	{name: "replay killed", partitions: 4, run: replayEnds(syscall.SIGKILL, -1)},
	{name: "two replays at once", partitions: 4, run: twoReplays},
	{name: "replay to an endpoint that fails", partitions: 2, run: replayFailures},
	{name: "replay doesn't overtake what failed", partitions: 1, run: replayDoesNotOvertake},
	{name: "replay doesn't overflow", partitions: 1, run: replayDoesNotOverflow},

	{name: "managed identity", partitions: 1, run: managedIdentity, services: identityServices},
	{name: "no secret shows", partitions: 1, run: noSecretShows, services: env.WithSecrets},
	{name: "no secret in a crash", partitions: 2, run: noSecretInCrash, services: env.WithSecrets},
	{name: "no secret around the endpoints topic", partitions: 1, run: noSecretAroundTopic, services: env.WithSecrets},

	{name: "transactions", partitions: 1, run: transactions},
	{name: "compacted topic", run: compacted, kafka: true},
	{name: "start of a group", partitions: 1, run: startOfGroup, protocols: true},
	{name: "retention overtakes", partitions: 1, run: retention},
	{name: "partition added, earliest", partitions: 1, run: partitionAdded("earliest"), protocols: true, kafka: true},
	{name: "partition added, latest", partitions: 1, run: partitionAdded("latest"), protocols: true, kafka: true},
	{name: "two copies with one instanceId", partitions: 2, run: sameInstanceID},
	{name: "static copy crashes", partitions: 2, run: staticCrash, protocols: true},
	{name: "topic comes later", run: topicLater, protocols: true, kafka: true},
	{name: "topic made anew", partitions: 1, run: topicAnew, protocols: true, kafka: true},
	{name: "slow endpoint holds back", partitions: 4, run: slowHoldsBack, protocols: true, kafka: true},
}

// TestScenarios runs each scenario in an environment of its own.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		if s.kafka && !realKafka {
			continue
		}
		with := []string{"classic"}
		if s.protocols && realKafka {
			with = protocols
		}
		for _, protocol := range with {
			name := s.name
			if len(with) > 1 {
				name += "/" + protocol
			}
			t.Run(name, func(t *testing.T) {
				if !s.alone {
					t.Parallel()
				}
				h := newHarness(t, env.Config{Partitions: s.partitions, Services: s.services})
				h.protocol = protocol
				s.run(h)
			})
		}
	}
}
