package main

import "time"

// chunk is a run of events of one partition.
type chunk struct {
	of      *partition
	events  int
	came    time.Duration // the middle of their appends
	decoded bool
}

// replica is a copy of twinegress: its cores, partitions and lanes,
// with a field for each quantity that the simulation follows.
type replica struct {
	m          *simulation
	free       int // cores
	jobs       []job
	partitions []*partition
	next       int          // partition to read from
	inRow      int          // events that were read of it in a row
	turns      []*partition // with queued chunks, a round-robin queue
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
	queued []*chunk // read, not emitted yet
}

type lane struct {
	c       *replica
	queue   []*chunk
	events  int // queued and in flight
	sending bool
	since   time.Duration // when the queue was last empty
	timer   bool
}

// assign returns the lane of each partition, as stages/ingest assigns it: one with
// the fewest partitions so far, the one of its number if that is among them.
func assign(partitions []int) map[int]int {
	given := make(map[int]int)
	load := make([]int, int(lanes.value))
	for _, p := range partitions {
		best := p % len(load)
		for j := range load {
			if other := (p + j) % len(load); load[other] < load[best] {
				best = other
			}
		}
		given[p] = best
		load[best]++
	}
	return given
}

// poll reads the available events of one partition after the other, as many of a
// backlog in a row as a fetch has, while there is room in flight.
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

// emit passes chunks to be decoded, round-robin over the partitions. As many are
// decoded before a lane gets a core as Go's scheduler lets a goroutine do: about
// 10 ms of work.
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

// dispatch passes decoded chunks to their lanes, in the order of reading.
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

// cpu runs a job on a core, first come, first served.
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

// send starts a send, unless one is in flight or the batch lingers.
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
	l.groupByPartition()
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
		l.since = l.c.m.now - time.Minute // the remainder does not linger
	}
	encode := time.Duration(sendCPU.value*1000) + time.Duration(n)*l.c.m.kind.eventCPU()
	l.c.cpu(encode, func() { l.submit(batch, n, l.c.m.now) })
}

// groupByPartition moves the events of the first event's partition to the front,
// as sinks does.
func (l *lane) groupByPartition() {
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

// submit simulates the service: it accepts the events, or throttles for a while.
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
			m.after(m.throttleDelay(), func() { l.submit(batch, n, begun) })
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
