// Package e2e is what twinegress promises, tested as it is run: processes of
// the built binary, a Kafka, and the emulated services as receivers that note
// every message in the order of its arrival.
//
// One table of scenarios (scenarios_test.go) runs over both brokers: over
// kfake, embedded, in `make test`, where the binary has the race detector and
// counts its coverage as the tests do; and over a real Apache Kafka with
// -tags=integration, where it is as it is shipped. What only a real Kafka can
// show has tests of its own.
//
//	go test ./e2e -run 'TestScenarios/killed'    one scenario, over kfake
//	make test-kafka                 everything over Kafka, and some rounds of the kill matrix
//	make kill-matrix ROUNDS=100     the kill matrix, into docs/kill-matrix.md
//
// KAFKA_BROKERS (a comma-separated list) points the tests at another cluster.
// Those that stop brokers are skipped then, and say so.
package e2e
