package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// scenario is a situation to simulate.
type scenario struct {
	kind       kind
	copies     int
	cores      int           // of each copy
	partitions [][]int       // of each copy, the Kafka partitions that it has
	rate       float64       // events a second in all, evenly over the partitions; 0: a backlog without end
	latency    time.Duration // of a send, in the middle
	limit      float64       // events a second that the service takes in all; 0: any
	budget     float64       // seconds of the limit that the service lets through at once
	run        int           // events of one partition that a fetch of a backlog brings in a row; 0: a chunk
	hub        int           // partitions of the event hub, of which a batch is for one; 0: for any
	fetch      time.Duration // between two fetches that find less than a chunk; 0: 1 ms
	warmUp     time.Duration // not counted
	duration   time.Duration // counted
}

// outcome is what came of it.
type outcome struct {
	rate      float64 // events delivered a second
	busy      float64 // share of the cores
	inFlight  float64 // sends in flight, of the lanes of all copies
	batch     float64 // events a send
	p50, p99  time.Duration
	heldBack  float64 // share of the time that a copy's intake waited for a lane
	throttled float64 // share of the sends that were refused
}

// simulate runs a scenario, an event of the simulation after the other. The
// same scenario always has the same outcome, on every machine: products are
// converted to float64 before something is added, so that no compiler makes one
// instruction, with one rounding less, of the two.
//
// A copy reads its partitions one after the other while it has room in flight.
// What is read goes on a chunk of each partition in turn: it takes a core to
// decode, then goes, in order, into its partition's lane; a full lane holds up
// all that comes after. A lane takes a core to encode a batch, then waits for
// the service. A service over its limit refuses, and the lane waits as it is
// told.
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

// simulation is the clock, the service, and what is counted.
type simulation struct {
	scenario
	now    time.Duration
	queue  agenda
	number int
	random *rand.Rand
	copies []*replica

	tokens   float64 // that the service has left
	refilled time.Duration

	counting         bool
	delivered, sends int
	refused          int
	waits            []wait
	sendTime         time.Duration // summed over lanes
	cpu              time.Duration
	heldBack         time.Duration
}

type wait struct {
	time   time.Duration
	events int
}

// chunk is a run of events of one partition.
type chunk struct {
	of      *partition
	events  int
	came    time.Duration // the middle of their appends
	decoded bool
}

// replica is a copy of twinegress.
type replica struct {
	m          *simulation
	free       int // cores
	jobs       []job
	partitions []*partition
	next       int          // partition to read from
	inRow      int          // events that were read of it in a row
	turns      []*partition // that have chunks queued, in the order of their turns
	order      []*chunk     // decoding or decoded, not dispatched yet
	lanes      []*lane
	inFlight   int // events
	idle       bool
	blocked    bool
	blockedAt  time.Duration
}

type job struct {
	takes time.Duration
	then  func()
}

type partition struct {
	number int
	lane   *lane
	read   float64  // events, ever
	queued []*chunk // read, not handed on yet
}

type lane struct {
	c       *replica
	queue   []*chunk
	events  int // queued and in flight
	sending bool
	since   time.Duration // when the queue was last empty
	timer   bool
}

// assign gives each partition its lane, as stages/ingest does: one that the
// fewest have by then, its number's own if it is among those.
func assign(partitions []int) map[int]int {
	given := make(map[int]int)
	taken := make([]int, int(lanes.value))
	for _, p := range partitions {
		best := p % len(taken)
		for j := range taken {
			if other := (p + j) % len(taken); taken[other] < taken[best] {
				best = other
			}
		}
		given[p] = best
		taken[best]++
	}
	return given
}

// poll reads what there is of one partition after the other, of a backlog as
// much in a row as a fetch brings, while there is room.
func (c *replica) poll() {
	room := int(inFlightBytes.value / heldBytes.value)
	for tried := 0; tried < len(c.partitions) && c.inFlight < room; {
		p := c.partitions[c.next]
		events, came := c.m.available(p)
		c.inRow += events
		if events == 0 || c.inRow >= c.m.scenario.run {
			c.next, c.inRow = (c.next+1)%len(c.partitions), 0
		}
		if events == 0 {
			tried++
			continue
		}
		tried = 0
		c.inFlight += events
		if len(p.queued) == 0 {
			c.turns = append(c.turns, p)
		}
		p.queued = append(p.queued, &chunk{of: p, events: events, came: came})
	}
	if c.idle = c.inFlight >= room; !c.idle {
		c.m.after(max(c.m.fetch, time.Millisecond), c.poll)
	} // otherwise an acknowledgement wakes it
	c.emit()
}

// emit hands chunks on to be decoded, of each partition in turn. So many are
// decoded between two things that lanes want a core for as Go's scheduler lets
// a goroutine do: some 10 ms of work.
func (c *replica) emit() {
	for len(c.turns) > 0 && len(c.order) < 32*c.m.cores {
		p := c.turns[0]
		ch := p.queued[0]
		c.turns, p.queued = c.turns[1:], p.queued[1:]
		if len(p.queued) > 0 {
			c.turns = append(c.turns, p)
		}
		c.order = append(c.order, ch)
		c.cpu(time.Duration(ch.events)*intake(), func() {
			ch.decoded = true
			c.dispatch()
		})
	}
}

// available takes up to a chunk of what a partition has.
func (m *simulation) available(p *partition) (events int, came time.Duration) {
	if m.rate == 0 {
		return int(chunkEvents.value), m.now
	}
	perSecond := m.rate / float64(m.partitionCount())
	// Partitions don't get their events in step.
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

// dispatch hands decoded chunks to their lanes, in the order of reading.
func (c *replica) dispatch() {
	for len(c.order) > 0 && c.order[0].decoded {
		ch := c.order[0]
		l := ch.of.lane
		if full := int(laneBatches.value) * int(batchEvents.value); l.events >= full {
			if !c.blocked {
				c.blocked, c.blockedAt = true, c.m.now
			}
			return // the lane's next acknowledgement dispatches
		}
		c.unblock()
		c.order = c.order[1:]
		if len(l.queue) == 0 {
			l.since = c.m.now
		}
		l.queue = append(l.queue, ch)
		l.events += ch.events
		l.send()
	}
	c.emit()
}

func (c *replica) unblock() {
	if c.blocked {
		c.blocked = false
		if c.m.counting {
			c.m.heldBack += c.m.now - c.blockedAt
		}
	}
}

func (c *replica) wake() {
	if c.idle {
		c.idle = false
		c.m.after(0, c.poll)
	}
}

// send begins a send, unless one is in flight, or a batch waits for more.
func (l *lane) send() {
	if l.sending || l.events == 0 {
		return
	}
	full := l.events >= fullBatch()
	if due := l.since + time.Duration(linger.value*float64(time.Millisecond)); !full && l.c.m.now < due {
		if !l.timer {
			l.timer = true
			l.c.m.at(due, func() {
				l.timer = false
				l.send()
			})
		}
		return
	}
	l.sending = true
	l.gather()
	var batch []*chunk
	n := 0
	for limit := min(l.events, l.c.m.kind.batch()); n < limit; {
		first := l.queue[0]
		if hub := l.c.m.hub; hub > 0 && n > 0 && first.of.number%hub != batch[0].of.number%hub {
			break
		}
		take := min(first.events, limit-n)
		ch := *first
		ch.events = take
		batch = append(batch, &ch)
		n += take
		if first.events -= take; first.events == 0 {
			l.queue = l.queue[1:]
		}
	}
	if len(l.queue) > 0 {
		l.since = l.c.m.now - time.Minute // what is left over has waited long enough
	}
	encode := time.Duration(sendCPU.value*1000) + time.Duration(n)*l.c.m.kind.eventCPU()
	l.c.cpu(encode, func() { l.submit(batch, n, l.c.m.now) })
}

// gather brings forward what is of the first event's partition, as sinks/lane.go does.
func (l *lane) gather() {
	var others []*chunk
	front, n, i := 0, 0, 0
	for ; i < len(l.queue) && n < int(batchEvents.value); i++ {
		ch := l.queue[i]
		if ch.of != l.queue[0].of {
			others = append(others, ch)
			continue
		}
		l.queue[front] = ch
		front++
		n += ch.events
	}
	copy(l.queue[front:i], others)
}

// submit is the service's part: it takes the events, or refuses for a while.
func (l *lane) submit(batch []*chunk, n int, begun time.Duration) {
	m := l.c.m
	m.after(m.roundTrip(), func() {
		if m.counting {
			m.sends++
		}
		if !m.admit(n) {
			if m.counting {
				m.refused++
			}
			m.after(m.told(), func() { l.submit(batch, n, begun) })
			return
		}
		if m.counting {
			m.sendTime += m.now - begun
			m.delivered += n
			for _, ch := range batch {
				m.waits = append(m.waits, wait{m.now - ch.came, ch.events})
			}
		}
		l.c.inFlight -= n
		l.acknowledged(n)
	})
}

func (l *lane) acknowledged(n int) {
	l.sending = false
	l.events -= n
	l.send()
	l.c.dispatch()
	l.c.wake()
}

// roundTrip is half fixed and half not: most take about the latency, one in a
// hundred nearly three times as long.
func (m *simulation) roundTrip() time.Duration {
	return time.Duration(float64(m.latency) * (0.5 + float64(0.5*m.random.ExpFloat64())))
}

// told is how long a lane waits that was refused.
func (m *simulation) told() time.Duration {
	return time.Duration(float64(m.kind.busy) * (1 - float64(busyJitter.value*m.random.Float64())))
}

// admit asks the service's budget, which fills at the limit.
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

// cpu has a core do something, the first come the first served.
func (c *replica) cpu(takes time.Duration, then func()) {
	c.jobs = append(c.jobs, job{takes, then})
	c.schedule()
}

func (c *replica) schedule() {
	for c.free > 0 && len(c.jobs) > 0 {
		j := c.jobs[0]
		c.jobs = c.jobs[1:]
		c.free--
		c.m.after(j.takes, func() {
			if c.m.counting {
				c.m.cpu += j.takes
			}
			c.free++
			j.then()
			c.schedule()
		})
	}
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
