package fleet

import (
	"sync"
	"time"
)

// shareOfCore bounds what all who ask for reports cost: one of a hundred copies with
// ten thousand endpoints takes most of a second, and clients may ask a hundred times a
// second. So a report is good for shareOfCore-1 times as long as it took. That of a few
// copies takes less than a millisecond.
const shareOfCore = 5

// latest is the report that was made last, while it is good.
type latest struct {
	mu     sync.Mutex
	report *Report // nil: none
}

// of returns the latest report, or makes one: one at a time.
func (l *latest) of(make func() *Report) *Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.report != nil {
		return l.report
	}
	begun := time.Now()
	l.report = make()
	time.AfterFunc((shareOfCore-1)*time.Since(begun), func() { // it is megabytes, which nobody may ask for again
		l.mu.Lock()
		defer l.mu.Unlock()
		l.report = nil
	})
	return l.report
}
