package ingest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// owned returns partitions that are read up to an offset, none of it committed.
func readTo(offset int64, numbers ...int32) (owned []*partition) {
	for _, n := range numbers {
		p := newPartition(topicPartition{topic, n}, new(assignment), new(model))
		p.setCommitted(commitment{nothing, ""})
		p.skip(offset-1, 7, offset)
		owned = append(owned, p)
	}
	return owned
}

// commitRequest is a request as the client makes it.
func commitRequest(r round) *kmsg.OffsetCommitRequest {
	request := kmsg.NewPtrOffsetCommitRequest()
	of := kmsg.NewOffsetCommitRequestTopic()
	of.Topic, of.TopicID = topic, [16]byte{1}
	for id, d := range r.due {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = id.number, d.mark.Offset
		of.Partitions = append(of.Partitions, p)
	}
	request.Topics = append(request.Topics, of)
	return request
}

func answer(topicID bool, codes map[int32]int16) *kmsg.OffsetCommitResponse {
	answer := kmsg.NewPtrOffsetCommitResponse()
	of := kmsg.NewOffsetCommitResponseTopic()
	of.Topic = topic
	if topicID {
		of.Topic, of.TopicID = "", [16]byte{1}
	}
	for number, code := range codes {
		p := kmsg.NewOffsetCommitResponseTopicPartition()
		p.Partition, p.ErrorCode = number, code
		of.Partitions = append(of.Partitions, p)
	}
	answer.Topics = append(answer.Topics, of)
	return answer
}

// What is another copy's by the time at which the request is sent isn't in it: the
// brokers would take it.
func TestCommitLeavesOutWhatHasEnded(t *testing.T) {
	c := new(committer)
	owned := readTo(10, 0, 1, 2)
	r := c.due(t.Context(), owned)
	if len(r.due) != 3 {
		t.Fatalf("%d partitions are due", len(r.due))
	}
	owned[1].release() // is still committed
	owned[2].finish()
	request := commitRequest(r)
	r.complete(request)
	var left []int32
	for _, p := range request.Topics[0].Partitions {
		left = append(left, p.Partition)
		if p.Metadata == nil || *p.Metadata != noPositions {
			t.Errorf("beside partition %d is %v", p.Partition, p.Metadata)
		}
	}
	if slices.Sort(left); !slices.Equal(left, []int32{0, 1}) {
		t.Errorf("committed are %v", left)
	}
	for _, p := range owned {
		p.finish()
	}
	if r.complete(request); len(request.Topics) > 0 {
		t.Error("a topic without partitions is committed: no broker answers for it")
	}
}

// A copy that the group took for dead commits nothing as another member that it gives up
// at once; what it still has at the next commit it does.
func TestCommitOfAnotherMember(t *testing.T) {
	c := new(committer)
	owned := readTo(10, 0, 1)
	for _, p := range owned {
		p.member = "first"
	}
	commits := func(as string) (numbers []int32) {
		r := c.due(t.Context(), owned)
		request := commitRequest(r)
		request.MemberID = as
		r.complete(request)
		for _, topic := range request.Topics {
			for _, p := range topic.Partitions {
				numbers = append(numbers, p.Partition)
			}
		}
		slices.Sort(numbers)
		return numbers
	}
	for i, step := range []struct {
		as   string
		want []int32
	}{{"first", []int32{0, 1}}, {"second", nil}, {"second", []int32{0}}, {"second", []int32{0}}, {"third", nil}} {
		if i == 1 {
			owned[1].release()
		}
		if got := commits(step.as); !slices.Equal(got, step.want) {
			t.Errorf("commit %d, as the %s member: %v, want %v", i, step.as, got, step.want)
		}
	}
}

// What isn't known to be committed is committed again, also when it is what was
// committed before; what is known isn't.
func TestCommitAgain(t *testing.T) {
	taken := func(answered *kmsg.OffsetCommitResponse, err error) func(*round, *kmsg.OffsetCommitRequest) {
		return func(r *round, request *kmsg.OffsetCommitRequest) { r.answered(request, answered, err, func(due) {}) }
	}
	for name, tt := range map[string]struct {
		answered func(*round, *kmsg.OffsetCommitRequest)
		again    bool
		err      error
	}{
		"taken":           {taken(answer(false, map[int32]int16{0: 0}), nil), false, nil},
		"taken, by id":    {taken(answer(true, map[int32]int16{0: 0}), nil), false, nil},
		"refused":         {taken(answer(true, map[int32]int16{0: kerr.IllegalGeneration.Code}), nil), true, kerr.IllegalGeneration},
		"not answered":    {taken(nil, errors.New("EOF")), true, nil},
		"another's":       {taken(answer(true, map[int32]int16{1: 0}), nil), true, errNotAnswered},
		"nothing comes":   {func(*round, *kmsg.OffsetCommitRequest) {}, true, nil},
		"too long a text": {taken(answer(true, map[int32]int16{0: kerr.OffsetMetadataTooLarge.Code}), nil), true, kerr.OffsetMetadataTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			c := new(committer)
			owned := readTo(10, 0)
			before := commitment{owned[0].marked, noPositions}
			owned[0].commitDone(before)
			if r := c.due(t.Context(), owned); len(r.due) > 0 {
				t.Fatal("due, though committed")
			}
			owned[0].skip(10, 7, 11)
			r := c.due(t.Context(), owned)
			request := commitRequest(r)
			r.complete(request)
			tt.answered(&r, request)
			if err := joined(r.failed); tt.err != nil && !errors.Is(err, tt.err) || !tt.again && err != nil {
				t.Errorf("failed: %v", err)
			}
			if again := len(c.due(t.Context(), owned).due) > 0; again != tt.again {
				t.Errorf("due again: %v", again)
			}
			if owned[0].changed(before) == false {
				t.Error("what was committed before counts as committed")
			}
		})
	}
}

// A cause is logged once, and rarely again while it lasts; one that rebalances bring
// only if it does. Both make the copy not ready, until a commit succeeds.
func TestCommitErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		contact := newContact(time.Minute)
		contact.joined()
		contact.OnBrokerRead(kgo.BrokerMetadata{}, 0, 0, 0, 0, nil)
		c := commitErrors{log: zap.New(core), contact: contact}
		fails := func(err error, partitions ...int32) {
			failed := make(map[topicPartition]error)
			for _, p := range partitions {
				failed[topicPartition{topic, p}] = err
			}
			c.handle(failed, true, time.Now())
			time.Sleep(commitInterval)
			contact.OnBrokerRead(kgo.BrokerMetadata{}, 0, 0, 0, 0, nil)
		}
		logged := func(n int) []observer.LoggedEntry {
			t.Helper()
			all := logs.TakeAll()
			if len(all) != n {
				t.Errorf("%d lines, want %d: %v", len(all), n, all)
			}
			return all
		}
		ready := func(want string) {
			t.Helper()
			missing := strings.Join(contact.missing("g"), "; ")
			if want == "" && missing != "" || !strings.Contains(missing, want) {
				t.Errorf("lacking is %q, want %q", missing, want)
			}
		}
		for range 9 {
			fails(kerr.StaleMemberEpoch, 0)
		}
		logged(0)
		ready("")
		for range 60 {
			fails(kerr.GroupAuthorizationFailed, 2, 0, 1)
		}
		if all := logged(1); len(all) > 0 && all[0].ContextMap()["partitions"] != "[twins:[0 1 2]]" {
			t.Errorf("logged %v", all[0].ContextMap())
		}
		ready("committing fails for 1m")
		fails(nil)
		ready("")
		logged(1) // it succeeds again
		for range 20 {
			fails(kerr.StaleMemberEpoch, 0)
		}
		logged(1)
		ready("committing fails for 10s")
		for range 601 {
			fails(kerr.StaleMemberEpoch, 0)
		}
		logged(1)
	})
}
