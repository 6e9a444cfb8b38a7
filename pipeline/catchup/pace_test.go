package catchup

import (
	"testing"
	"time"
)

// paced plays a copy, a tick after the other: what live takes, and what is read for
// endpoints that are behind as far as the pace lets it. Each record takes processor time.
type paced struct {
	*pace
	now     time.Time
	load    Load
	perRead time.Duration // processor time of a record
	read    int
}

func newPaced(cores int) *paced {
	p := &paced{pace: newPace(cores), now: time.Unix(1e9, 0), perRead: time.Microsecond}
	p.look(p.now, p.load)
	return p
}

// run lets time pass while live takes so many records a second, and returns how many a
// second were read over the last second of it.
func (p *paced) run(d time.Duration, live float64, most int) (rate float64) {
	const tick = 10 * time.Millisecond
	last := 0
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(tick) {
		records := live * tick.Seconds()
		p.load.Records += int64(records)
		p.load.CPU += time.Duration(records * 2 * float64(time.Microsecond))
		if p.due(p.now) {
			p.look(p.now, p.load)
		}
		for n := 0; n < most; n += 1000 {
			if wait, _ := p.wait(p.now); wait > 0 {
				break
			}
			p.take(1000)
			p.read += 1000
			p.load.CPU += 1000 * p.perRead
			if end.Sub(p.now) <= time.Second {
				last += 1000
			}
		}
	}
	return float64(last)
}

const unbounded = 1 << 30

func TestPaceUsesWhatIsIdle(t *testing.T) {
	p := newPaced(2)
	p.run(20*time.Second, 0, unbounded)
	if rate := p.run(10*time.Second, 0, unbounded); rate < 1.6e6 || rate > 2.1e6 { // two cores at a microsecond each
		t.Errorf("%.0f records a second are read", rate)
	}
	p = newPaced(2)
	p.run(20*time.Second, 400_000, unbounded) // live has 0.8 of two cores
	if rate := p.run(10*time.Second, 400_000, unbounded); rate < 0.75e6 || rate > 1.3e6 {
		t.Errorf("%.0f records a second are read beside live", rate)
	}
}

// It gets to a high rate within seconds, and doesn't get beyond what it could use.
func TestPaceGrowth(t *testing.T) {
	p := newPaced(8)
	p.run(5*time.Second, 0, unbounded)
	if p.rate < 100_000 {
		t.Errorf("after five seconds the rate is %.0f", p.rate)
	}
	p = newPaced(8)
	p.run(time.Minute, 0, 1000) // a hundred times a second at most
	if p.rate > 1e6 {
		t.Errorf("a rate of %.0f that nobody uses", p.rate)
	}
}

// While live waits, or falls behind, nothing is read; then again, from half the rate.
func TestPaceLiveComesFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		disturb, undo func(*Load)
		why           waiting
	}{
		"live waits for room": {func(l *Load) { l.Full = true }, func(l *Load) { l.Full = false }, waitsForRoom},
		"live falls behind":   {func(l *Load) { l.Lag += 500_000 }, func(*Load) {}, waitsForLive},
	} {
		p := newPaced(2)
		p.run(20*time.Second, 200_000, unbounded)
		before, read := p.rate, 0
		tt.disturb(&p.load)
		p.run(paceInterval, 200_000, unbounded) // until it is seen
		read = p.read
		for range 4 {
			tt.disturb(&p.load)
			p.run(paceInterval, 200_000, unbounded)
			if _, why := p.wait(p.now); why != tt.why {
				t.Errorf("%s: it waits for %q", name, why)
			}
		}
		if p.read > read {
			t.Errorf("%s: %d are read", name, p.read-read)
		}
		tt.undo(&p.load)
		p.run(2*paceInterval, 200_000, unbounded)
		if p.read == read {
			t.Errorf("%s: nothing is read after that", name)
		}
		if p.rate >= before {
			t.Errorf("%s: the rate was %.0f and is %.0f", name, before, p.rate)
		}
	}
}

// A lag that isn't known, or that is in flight at most, or that falls, is no reason.
func TestPaceLags(t *testing.T) {
	for name, lag := range map[string]func(i int) int64{
		"not known":                func(int) int64 { return -1 },
		"known for the first time": func(i int) int64 { return int64(min(i, 1))*2e6 - 1 },
		"small":                    func(i int) int64 { return int64(i % 2 * 50_000) },
		"falling":                  func(i int) int64 { return int64(10e6 - i*1000) },
	} {
		p := newPaced(2)
		p.load.Lag = lag(0)
		p.run(15*time.Second, 100_000, unbounded)
		for i := range 20 {
			p.load.Lag = lag(i)
			p.run(paceInterval, 100_000, unbounded)
			if _, why := p.wait(p.now); why == waitsForLive {
				t.Errorf("%s: it waits for live", name)
			}
		}
	}
}

// With the processors busy half of what live takes is left, and a least.
func TestPaceFloor(t *testing.T) {
	for live, want := range map[float64]float64{0: minRate, 100_000: 50_000} {
		p := newPaced(2)
		p.perRead = time.Millisecond // takes all there is
		p.run(60*time.Second, live, unbounded)
		if p.rate < want*0.95 {
			t.Errorf("beside %.0f of live the rate is %.0f, want %.0f", live, p.rate, want)
		}
		if live == 0 && p.rate > 3*want {
			t.Errorf("beside nothing the rate is %.0f", p.rate)
		}
	}
}

// What takes a long time to come, such as a clock that is set, or nobody who is behind,
// says nothing about the rate; and debts are paid before more is read.
func TestPaceGapsAndDebts(t *testing.T) {
	p := newPaced(2)
	p.run(5*time.Second, 0, unbounded)
	p.now = p.now.Add(time.Hour)
	p.load.Records += 1e9
	p.look(p.now, p.load)
	if p.live > 1e6 {
		t.Errorf("live is %.0f a second after an hour of which nothing is known", p.live)
	}
	p.rate, p.tokens = minRate, 0
	p.take(100)
	if wait, why := p.wait(p.now); wait != 100*time.Millisecond || why != waitsForRate {
		t.Errorf("the wait for a debt of 100 is %v, for %q", wait, why)
	}
	if wait, _ := p.wait(p.now.Add(-time.Hour)); wait <= 0 {
		t.Error("time that goes back pays a debt")
	}
	if wait, _ := p.wait(p.now.Add(100 * time.Millisecond)); wait != 0 {
		t.Errorf("once it is paid the wait is %v", wait)
	}
}

// What could run and waits for a processor is live's: other processes may have them.
func TestPaceDelays(t *testing.T) {
	p := newPaced(8)
	p.run(5*time.Second, 0, unbounded)
	before := p.rate
	p.load.Delay = late
	p.run(time.Second, 0, unbounded)
	if p.rate < before {
		t.Error("the rate falls for a delay that is none")
	}
	before, p.load.Delay = p.rate, late+1
	if p.run(time.Second, 0, unbounded); p.rate != before {
		t.Errorf("with small delays the rate was %.0f and is %.0f", before, p.rate)
	}
	p.load.Delay = tooLate + 1
	if p.run(4*paceInterval, 0, unbounded); p.rate > before/8 {
		t.Errorf("with long delays the rate was %.0f and is %.0f", before, p.rate)
	}
}

// The delays of a process are known from the second look on.
func TestDelays(t *testing.T) {
	var d delays
	if high := d.high(); high != 0 {
		t.Errorf("%v is known of the time before", high)
	}
	for d.high() == 0 { // the test's time limit ends it
		done := make(chan struct{})
		for range 1000 {
			go func() { done <- struct{}{} }()
		}
		for range 1000 {
			<-done
		}
	}
}
