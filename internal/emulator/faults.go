package emulator

import (
	"strings"
	"sync/atomic"
)

// faultSlot holds the active fault, if any. Every delivery reads it, hence no lock.
type faultSlot struct{ p atomic.Pointer[activeFault] }

// activeFault is a fault and its counts of deliveries.
type activeFault struct {
	Fault
	seen, applied atomic.Int64
}

func (s *faultSlot) get() *activeFault { return s.p.Load() }

func (s *faultSlot) set(f *Fault) *activeFault {
	if f == nil {
		s.p.Store(nil)
		return nil
	}
	a := &activeFault{Fault: *f}
	s.p.Store(a)
	return a
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
