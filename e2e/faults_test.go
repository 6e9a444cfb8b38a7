//go:build integration

package e2e

import (
	"errors"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"twinegress/e2e/env"
)

// fault is what happens in a round.
type fault struct {
	name, what string
	inject     func(*matrix)
}

const sessionTimeout = 6 * time.Second // as env.Settings has it

var faults = []fault{
	{"kill", "a copy gets SIGKILL and is started again within 3 s", func(m *matrix) {
		r := m.anyCopy()
		r.kill()
		m.pass(m.upTo(3 * time.Second))
		r.start()
	}},
	{"kill, late restart", "a copy gets SIGKILL and is started again after the session time-out", func(m *matrix) {
		r := m.anyCopy()
		r.kill()
		m.pass(sessionTimeout + time.Second + m.upTo(time.Second))
		r.start()
	}},
	{"stop", "a copy gets SIGTERM, ends in order, and is started again within 2 s", func(m *matrix) {
		r := m.anyCopy()
		r.stop()
		m.pass(m.upTo(2 * time.Second))
		r.start()
	}},
	{"zombie", "a copy gets SIGSTOP, loses its partitions by the session time-out, and wakes up", func(m *matrix) {
		r := m.anyCopy()
		r.signal(syscall.SIGSTOP)
		m.pass(sessionTimeout + 2*time.Second + m.upTo(2*time.Second))
		r.signal(syscall.SIGCONT)
	}},
	{"pause", "a copy gets SIGSTOP for less than the session time-out, longer than send.timeout", func(m *matrix) {
		r := m.anyCopy()
		r.signal(syscall.SIGSTOP)
		m.pass(sessionTimeout - time.Second - m.upTo(500*time.Millisecond))
		r.signal(syscall.SIGCONT)
	}},
	{"broker restart", "a broker is stopped in order and started again", func(m *matrix) {
		id := m.anyNode()
		m.h.Must(m.cluster.Stop(m.h.Context(), id))
		m.pass(m.upTo(2 * time.Second))
		m.h.Must(m.cluster.Restart(m.h.Context(), id))
	}},
	{"broker kill", "a broker gets SIGKILL and is started again", func(m *matrix) {
		id := m.anyNode()
		m.h.Must(m.cluster.Kill(id))
		m.pass(m.upTo(2 * time.Second))
		m.h.Must(m.cluster.Restart(m.h.Context(), id))
	}},
	{"leaders change", "every partition of the ingest topic gets another leader", func(m *matrix) {
		m.moveLeaders(m.h.Topic)
	}},
	{"broker unreachable", "a broker gets SIGSTOP: its connections stay, and nothing answers", func(m *matrix) {
		id := m.anyNode()
		m.h.Must(m.cluster.Suspend(id))
		m.pass(*matrixOutage)
		m.h.Must(m.cluster.Resume(id))
	}},
	{"coordinator moves", "the partitions of the group's offsets get other leaders", func(m *matrix) {
		m.moveLeaders("__consumer_offsets")
	}},
	{"partition added", "the ingest topic gets one more partition", func(m *matrix) {
		_, err := m.h.Admin.UpdatePartitions(m.h.Context(), m.partitions+1, m.h.Topic)
		m.h.Must(err)
		m.partitions++
		m.load.grow()
	}},
	{"endpoints change", "the endpoints file gets or loses an endpoint while a copy restarts and the group rebalances", func(m *matrix) {
		r := m.anyCopy()
		m.changeEndpoints()
		r.stop()
		m.changeEndpoints()
		r.start()
		m.changeEndpoints()
	}},
	{"scale", "a fourth copy joins, has its share, and leaves", func(m *matrix) {
		m.grow(matrixCopies+1, m.settings)
		m.awaitShares(false)
		m.copies[matrixCopies].stop()
		m.copies = m.copies[:matrixCopies]
	}},
}

func (m *matrix) anyCopy() *replica { return m.copies[m.random.IntN(len(m.copies))] }

func (m *matrix) anyNode() int32 {
	ids := m.cluster.Nodes()
	return ids[m.random.IntN(len(ids))]
}

func (m *matrix) upTo(d time.Duration) time.Duration { return time.Duration(m.random.Int64N(int64(d))) }

// pass lets time pass: it is what the fault consists of.
func (m *matrix) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-m.t.Context().Done():
	}
}

// moveLeaders makes the next replica of each of a topic's partitions the
// preferred one, and its leader.
func (m *matrix) moveLeaders(topic string) {
	m.t.Helper()
	ctx := m.h.Context()
	admin := kadm.NewClient(m.h.NewClient()) // the other one has the leaders cached
	meta, err := admin.Metadata(ctx, topic)
	m.h.Must(err)
	var assignments kadm.AlterPartitionAssignmentsReq
	var which kadm.TopicsSet
	for _, p := range meta.Topics[topic].Partitions {
		which.Add(topic, p.Partition)
		assignments.Assign(topic, p.Partition, append(p.Replicas[1:len(p.Replicas):len(p.Replicas)], p.Replicas[0]))
	}
	answer, err := admin.AlterPartitionAssignments(ctx, assignments)
	m.h.Must(err)
	m.h.Must(answer.Error())
	env.Eventually(m.t, "the replicas are reordered", func() bool {
		moving, err := admin.ListPartitionReassignments(ctx, nil)
		return err == nil && len(moving.Sorted()) == 0
	})
	elected, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, which)
	m.h.Must(err)
	for _, p := range elected[topic] {
		if !errors.Is(p.Err, kerr.ElectionNotNeeded) {
			m.h.Must(p.Err)
		}
	}
}

func (m *matrix) changeEndpoints() {
	m.t.Helper()
	m.extra = !m.extra
	m.setEndpoints()
}
