package main

import (
	"container/heap"
	"time"
)

type entry struct {
	at     time.Duration
	number int // orders entries of the same time
	do     func()
}

// agenda is the queue of future entries: a heap by time.
type agenda []entry

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].number < a[j].number
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(entry)) }
func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	old[len(old)-1] = entry{}
	*a = old[:len(old)-1]
	return last
}

func (m *simulation) at(t time.Duration, do func()) {
	m.number++
	heap.Push(&m.queue, entry{t, m.number, do})
}

func (m *simulation) after(d time.Duration, do func()) { m.at(m.now+d, do) }

func (m *simulation) run(until time.Duration) {
	for len(m.queue) > 0 && m.queue[0].at <= until {
		e := heap.Pop(&m.queue).(entry)
		m.now = e.at
		e.do()
	}
	m.now = until
}
