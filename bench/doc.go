// Package bench measures what twinegress costs, against a floor: the simplest
// loop for the same work (package floor).
//
// A broker, the emulated services and the process that is measured are
// children of the harness, so that what the operating system counts for that
// one process is its own. The topic is loaded before it starts. The floor and
// `run` take turns, and each pair gives a ratio: what slows the machine down
// for a while slows both.
//
//	scenario.go   what is measured
//	harness.go    a scenario from beginning to end: parts, pairs, samples
//	measure.go    one process, from its start to its end
//	world.go      broker, services, topics; load.go fills these
//	process.go    children; child.go is what they do; pin_*.go their cores
//	report.go     the result; table.go, svg.go, benchfmt.go show it
package bench
