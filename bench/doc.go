// Package bench measures what twinegress costs, against a floor: the simplest
// loop for the same work (package floor).
//
// The broker, the emulated services and the measured process are children of the
// harness, so that the operating system counts each by itself. The topic is
// loaded before the measured process starts. The floor and `run` alternate, and
// each pair has a ratio: a slower phase of the machine affects both.
//
//	scenario.go   the scenarios
//	harness.go    runs a scenario: parts, pairs, samples
//	measure.go    measures one process, from its start to its end; live.go while its events arrive
//	env.go        broker, services, topics; load.go and paced.go produce the events
//	process.go    the children; child.go their roles; pin_*.go their cores
//	report.go     the report; table.go, svg.go, benchfmt.go write it
package bench
