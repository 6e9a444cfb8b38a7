package main

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// scenario is a load, the copies and the service to simulate, with a field per
// parameter.
type scenario struct {
	kind       kind
	copies     int
	cores      int           // of each copy
	partitions [][]int       // of each copy, the Kafka partitions that it has
	rate       float64       // events a second in all, evenly over the partitions; 0: a backlog without end
	latency    time.Duration // of a send, the median
	limit      float64       // events a second that the service accepts in total; 0: any
	budget     float64       // seconds of the limit that the service accepts at once
	run        int           // events of one partition that a fetch of a backlog has in a row; 0: a chunk
	hub        int           // partitions of the event hub, of which a batch is for one; 0: for any
	fetch      time.Duration // between two fetches that find less than a chunk; 0: 1 ms
	warmUp     time.Duration // not counted
	duration   time.Duration // counted
}

// outcome is the result of a simulation.
type outcome struct {
	rate      float64 // events delivered a second
	busy      float64 // share of the cores
	inFlight  float64 // sends in flight, of the lanes of all copies
	batch     float64 // events a send
	p50, p99  time.Duration
	heldBack  float64 // share of the time that a copy's intake waited for a lane
	throttled float64 // share of the sends that were throttled
}

// simulate runs a scenario as a discrete-event simulation. A scenario always has
// the same outcome, on every machine: products are converted to float64 before an
// addition, so that no compiler fuses the two into one instruction with one
// rounding less.
//
// A copy reads its partitions one after the other while it has room in flight.
// Chunks continue round-robin over the partitions: each uses a core to be decoded,
// then is queued, in order, in its partition's lane; a full lane blocks all later
// chunks. A lane uses a core to encode a batch, then waits for the service. A
// service over its limit throttles, and the lane waits as long as it asks.
func simulate(s scenario) outcome {
	m := &simulation{scenario: s, random: rand.New(rand.NewPCG(1, 2)), tokens: s.limit * s.budget}
	for i := range s.copies {
		c := &replica{m: m, free: s.cores}
		for range int(lanes.value) {
			c.lanes = append(c.lanes, &lane{c: c})
		}
		lanes := assign(s.partitions[i])
		for _, p := range s.partitions[i] {
			c.partitions = append(c.partitions, &partition{number: p, lane: c.lanes[lanes[p]]})
		}
		m.copies = append(m.copies, c)
		m.at(0, c.poll)
	}
	m.run(s.warmUp)
	m.start()
	m.run(s.warmUp + s.duration)
	return m.outcome()
}

// simulation is the clock, the service and the counters of a scenario: every step
// of the simulation uses all three.
type simulation struct {
	scenario
	now    time.Duration
	queue  []entry // what is to come, in order
	random *rand.Rand
	copies []*replica

	tokens   float64 // of the service's budget
	refilled time.Duration

	counting         bool
	delivered, sends int
	refused          int
	waits            []wait
	sendTime         time.Duration // summed over lanes
	cpu              time.Duration
	heldBack         time.Duration
}

type entry struct {
	at time.Duration
	do func()
}

// at puts something in the queue, behind what is there for the same time.
func (m *simulation) at(t time.Duration, do func()) {
	i, _ := slices.BinarySearchFunc(m.queue, t+1, func(e entry, t time.Duration) int { return cmp.Compare(e.at, t) })
	m.queue = slices.Insert(m.queue, i, entry{t, do})
}

func (m *simulation) after(d time.Duration, do func()) { m.at(m.now+d, do) }

func (m *simulation) run(until time.Duration) {
	for len(m.queue) > 0 && m.queue[0].at <= until {
		e := m.queue[0]
		m.queue = m.queue[1:]
		m.now = e.at
		e.do()
	}
	m.now = until
}

type wait struct {
	time   time.Duration
	events int
}

// available returns up to a chunk of a partition's events and counts them as read.
func (m *simulation) available(p *partition) (events int, came time.Duration) {
	if m.rate == 0 {
		return int(chunkEvents.value), m.now
	}
	perSecond := m.rate / float64(m.partitionCount())
	// Partitions don't get their events at the same moments.
	there := float64(perSecond*m.now.Seconds()) + float64(p.number%7)/7
	n := min(int(there-p.read), int(chunkEvents.value))
	if n <= 0 {
		return 0, 0
	}
	came = seconds((p.read + float64(n)/2) / perSecond)
	p.read += float64(n)
	return n, min(came, m.now)
}

func (m *simulation) partitionCount() (n int) {
	for _, c := range m.copies {
		n += len(c.partitions)
	}
	return n
}

// roundTrip returns the duration of a send, half of it fixed and half random: most
// take about the latency, one in a hundred nearly three times as long.
func (m *simulation) roundTrip() time.Duration {
	return time.Duration(float64(m.latency) * (0.5 + float64(0.5*m.random.ExpFloat64())))
}

// throttleDelay returns how long a throttled lane waits.
func (m *simulation) throttleDelay() time.Duration {
	return time.Duration(float64(m.kind.busy) * (1 - float64(busyJitter.value*m.random.Float64())))
}

// admit takes n events from the service's budget, which fills at the limit.
func (m *simulation) admit(n int) bool {
	if m.limit == 0 {
		return true
	}
	m.tokens = min(m.tokens+float64(m.limit*(m.now-m.refilled).Seconds()), max(m.limit*m.budget, float64(m.kind.batch())))
	m.refilled = m.now
	if m.tokens < float64(n) {
		return false
	}
	m.tokens -= float64(n)
	return true
}

func (m *simulation) start() {
	m.counting = true
	for _, c := range m.copies {
		c.blockedAt = m.now
	}
}

func (m *simulation) outcome() outcome {
	for _, c := range m.copies {
		c.unblock()
	}
	slices.SortFunc(m.waits, func(a, b wait) int { return int(a.time - b.time) })
	quantile := func(q float64) time.Duration {
		left := q * float64(m.delivered)
		for _, w := range m.waits {
			if left -= float64(w.events); left <= 0 {
				return w.time
			}
		}
		return 0
	}
	span := m.duration.Seconds()
	return outcome{
		rate:      float64(m.delivered) / span,
		busy:      m.cpu.Seconds() / span / float64(m.cores*m.scenario.copies),
		inFlight:  m.sendTime.Seconds() / span,
		batch:     float64(m.delivered) / float64(max(1, m.sends-m.refused)),
		p50:       quantile(0.5),
		p99:       quantile(0.99),
		heldBack:  m.heldBack.Seconds() / span / float64(m.scenario.copies),
		throttled: float64(m.refused) / float64(max(1, m.sends)),
	}
}
