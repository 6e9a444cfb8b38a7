//go:build !integration

package e2e

import "testing"

const realKafka = false

// brokers are none: each environment has an embedded broker of its own.
func brokers(testing.TB) []string { return nil }

func closeCluster() {}
