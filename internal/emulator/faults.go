package emulator

import (
	"strings"
	"sync/atomic"
)

// activeFault is a fault and its counts of deliveries.
type activeFault struct {
	Fault
	seen, applied atomic.Int64
}

// activate returns the fault with its counts at zero; nil for none.
func activate(f *Fault) *activeFault {
	if f == nil {
		return nil
	}
	return &activeFault{Fault: *f}
}

// fault returns the fault; nil has none, so that callers need no case for it.
func (a *activeFault) fault() *Fault {
	if a == nil {
		return nil
	}
	return &a.Fault
}

// applies counts a delivery and reports whether the delivery faults apply to it.
func (a *activeFault) applies() bool {
	n := a.seen.Add(1)
	if a.Every > 1 && n%int64(a.Every) != 0 {
		return false
	}
	return a.Times == 0 || a.applied.Add(1) <= int64(a.Times)
}

// delivery reports whether there is a delivery fault.
func (f *Fault) delivery() bool {
	return f.Cut != "" || f.Detach != "" || f.Throttle > 0 || f.Outcome != "" || f.Status != 0 || f.NeverSettle || f.Delay > 0
}

// conditionText returns the description of a condition: the fault's or a default.
func (f *Fault) conditionText(condition, entity string) string {
	switch {
	case f.Description != "":
		return f.Description
	case condition == "amqp:not-found":
		return "The messaging entity '" + entity + "' could not be found."
	case strings.HasSuffix(condition, ":entity-disabled"):
		return "Messaging entity '" + entity + "' is currently disabled."
	case condition == "amqp:unauthorized-access":
		return "Unauthorized access. 'Send' claim(s) are required to perform this operation."
	}
	return "Emulated fault."
}
