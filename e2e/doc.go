// Package e2e is what twinegress promises, tested as it is run: real processes
// of the built binary, a real Apache Kafka, and the emulated services as
// receivers that note every message in the order of its arrival.
//
//	make test-kafka                 everything, and some rounds of the kill matrix
//	make kill-matrix ROUNDS=100     the kill matrix, into docs/kill-matrix.md
//
// KAFKA_BROKERS (a comma-separated list) points the tests at another cluster.
// Those that stop brokers are skipped then, and say so.
package e2e
