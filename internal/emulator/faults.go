package emulator

import (
	"strings"
	"sync/atomic"
)

// faultSlot holds the fault that is switched on, if any. Reading it is on the path
// of every delivery, hence no lock.
type faultSlot struct{ p atomic.Pointer[activeFault] }

// activeFault is a fault and how often it struck.
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

// fault is nil-safe, so that the callers need no case for a healthy entity.
func (a *activeFault) fault() *Fault {
	if a == nil {
		return nil
	}
	return &a.Fault
}

// strikes counts a delivery and tells whether the delivery faults apply to it.
func (a *activeFault) strikes() bool {
	n := a.seen.Add(1)
	if a.Every > 1 && n%int64(a.Every) != 0 {
		return false
	}
	return a.Times == 0 || a.applied.Add(1) <= int64(a.Times)
}

// delivery tells whether there is a delivery fault at all.
func (f *Fault) delivery() bool {
	return f.Cut != "" || f.Detach != "" || f.Throttle > 0 || f.Outcome != "" || f.Status != 0 || f.NeverSettle || f.Delay > 0
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// conditionText is what goes with a condition when the fault doesn't say.
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
