package fleet

import (
	"cmp"
	"slices"

	"twinegress/sinks"
)

// The worst states come first: what shows an endpoint's state over all copies. Behind
// is after all in which something is wrong with the service, also if that is only that
// it is slow: it is how an endpoint that works gets what it has missed. That another
// copy's part of it is behind is seen from its backlog, whatever the state.
var badness = []sinks.State{
	sinks.StateBackingOff, sinks.StateProbing, sinks.StateDegraded, sinks.StateThrottled, stateUnknown,
	sinks.StateBehind, sinks.StateStopped, sinks.StateDeleting, sinks.StateProvisioning, sinks.StateReady,
}

// compareStates is negative if a is worse than b.
func compareStates(a, b sinks.State) int {
	return cmp.Compare(slices.Index(badness, a), slices.Index(badness, b))
}
