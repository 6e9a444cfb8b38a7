package catchup

import (
	"time"
)

const (
	// paceInterval is how often the rate is decided about.
	paceInterval = 250 * time.Millisecond
	// paceGap is after how long without a look at the load it is looked at anew.
	paceGap = 4 * paceInterval
	// minRate is the lowest rate, in records a second, and overLive the lowest in parts of
	// live's: with no more than live has, nobody would ever catch up, on a machine that
	// others keep busy for good. Less is read only where live falls behind.
	minRate  = 1000
	overLive = 1.25
	// liveWindow is over how long the rate of live is averaged.
	liveWindow = 10 * time.Second

	// busy and crowded are shares of the processors: above the one nothing is idle, and
	// above the other what is read for endpoints that are behind gets less.
	busy, crowded = 0.85, 0.95
	// late and tooLate are the same of how long what could run waits for a processor,
	// which other processes may have. A process that is half busy has some milliseconds
	// of it by itself: with 1 ms and 5 ms, and with twice that, catching up was held to
	// half of the highest rate, and the others had it no better for that.
	late, tooLate = 5 * time.Millisecond, 25 * time.Millisecond
	// While nothing has been in the way, or most is idle, the rate grows fast, else by a
	// tenth.
	fastGrowth, slowGrowth = 1.5, 1.1
)

// Load is what else this copy does.
type Load struct {
	Records int64 // read by all endpoints together, since start
	Full    bool  // polling waits for room
	Lag     int64 // of what they read; -1: not known
	// CPU is the processor time that the process has had; -1: not known.
	CPU time.Duration
	// Delay is how long one in a hundred of what could run has waited for a processor
	// since the last look; 0: not known.
	Delay time.Duration
}

// waiting is why nothing is read at the moment.
type waiting string

const (
	waitsForNothing waiting = ""
	waitsForRoom    waiting = "live waits for room"
	waitsForLive    waiting = "live falls behind"
	waitsForRate    waiting = "rate"
	waitsForMemory  waiting = "memory"
)

// pace bounds how many records a second are read for endpoints that are behind. What
// all endpoints read together comes first: nothing is read while that waits for room
// or falls behind. Else the rate grows while the processors are idle, and never falls
// below what lets an endpoint catch up. It is clock-free.
type pace struct {
	cores float64

	rate   float64 // records a second
	floor  float64 // the lowest rate now
	tokens float64 // records that may be read now; negative: a debt
	filled time.Time
	short  bool // since looked somebody had to wait for them
	eased  bool // something has been in the way: the rate grows slowly

	load   Load
	looked time.Time
	live   float64 // records a second
	waits  waiting
}

func newPace(cores int) *pace { return &pace{cores: float64(cores), rate: minRate, floor: minRate} }

// due reports whether the load is to be looked at.
func (p *pace) due(now time.Time) bool { return now.Sub(p.looked) >= paceInterval }

// look decides about the rate, by what changed since the last look.
func (p *pace) look(now time.Time, l Load) {
	since, before := now.Sub(p.looked), p.load
	p.fill(now)
	p.load, p.looked = l, now
	short := p.short
	p.short = false
	if since > paceGap { // nobody was behind: what has changed since says nothing
		p.eased, p.waits = false, waitsForNothing
		p.rate, p.tokens = max(p.rate/2, p.floor), 0
		if l.Full {
			p.yield(waitsForRoom)
		}
		return
	}
	seconds := since.Seconds()
	latest := float64(l.Records-before.Records) / seconds
	p.live += (latest - p.live) * min(1, seconds/liveWindow.Seconds())
	p.floor = max(minRate, overLive*p.live)
	switch {
	case l.Full:
		p.yield(waitsForRoom)
		return
	// A second's worth is no lag: that much is in flight at full speed.
	case l.Lag > before.Lag && before.Lag >= 0 && float64(l.Lag) > max(minRate, p.live):
		p.yield(waitsForLive)
		return
	}
	p.waits = waitsForNothing
	share := 0.0
	if l.CPU >= 0 && before.CPU >= 0 {
		share = (l.CPU - before.CPU).Seconds() / seconds / p.cores
	}
	switch {
	case share > crowded || l.Delay > tooLate:
		p.rate /= 2
		p.eased = true
	case share > busy || l.Delay > late:
		p.eased = true
	case !short: // something else bounds it
	case p.eased && share > busy/2:
		p.rate *= slowGrowth
	default:
		p.rate *= fastGrowth
	}
	p.rate = max(p.rate, p.floor)
}

// yield stops reading until the next look.
func (p *pace) yield(to waiting) {
	p.waits, p.eased = to, true
	p.rate = max(p.rate/2, p.floor)
	p.tokens = min(p.tokens, 0)
}

// fill adds what the time since has brought, up to an interval's.
func (p *pace) fill(now time.Time) {
	if now.Before(p.filled) {
		return
	}
	if p.waits == waitsForNothing {
		p.tokens = min(p.tokens+p.rate*now.Sub(p.filled).Seconds(), p.rate*paceInterval.Seconds())
	}
	p.filled = now
}

// wait returns how long to wait before more is read; 0: not at all.
func (p *pace) wait(now time.Time) (time.Duration, waiting) {
	p.fill(now)
	switch {
	case p.waits != waitsForNothing:
		return max(p.looked.Add(paceInterval).Sub(now), time.Millisecond), p.waits
	case p.tokens < 0:
		p.short = true
		debt := time.Duration(-p.tokens / p.rate * float64(time.Second))
		return max(min(debt, paceInterval), time.Millisecond), waitsForRate
	default:
		return 0, waitsForNothing
	}
}

// take counts records that were read.
func (p *pace) take(records int) {
	p.tokens -= float64(records)
}
