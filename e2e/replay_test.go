package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
	"twinegress/pipeline/replay"
)

// keeping are settings with which dropped events are kept, and what fails stays so.
var keeping = env.Settings{"deadLetter.backoff": "true", "backoff.initial": "1m"}

// drop runs a copy over these records while entities refuse everything, so that
// each event becomes a dead letter of each, and returns the endpoints' ids by path.
func (h *harness) drop(records []*kgo.Record, entities ...string) map[string]string {
	h.T.Helper()
	h.refuse(entities...)
	r := h.run("one", keeping)
	// The first half finds out, the second is dropped for it.
	half := len(records) / 2
	h.Produce(records[:half]...)
	r.settled(half)
	h.Produce(records[half:]...)
	st := r.settled(len(records))
	h.equation(st)
	r.stop()
	return idsByPath(st)
}

// startReplay starts a replay of many sends, so that there is a middle.
func (h *harness) startReplay(args ...string) *process {
	h.T.Helper()
	settings := env.Settings{"batch.maxEvents": "100", "deadLetter.backoff": "true", "backoff.initial": "1m"}
	return start(h.T, "replay", h.variables(settings), append([]string{"replay", "--output", "json"}, args...)...)
}

// result waits for the end of a replay and returns its exit code and its result.
func (h *harness) result(p *process) (code int, result replay.Result) {
	h.T.Helper()
	if code = p.wait(); code < 0 || code > 1 {
		return code, result
	}
	unmarshal(h.T, p.out.String(), &result)
	if sum := int64(result.Delivered+result.RefusedAgain+result.Undelivered) + result.Skipped.Total(); sum != result.Letters {
		h.T.Errorf("%d letters, but the parts are %d: %+v", result.Letters, sum, result)
	}
	return code, result
}

// replayed wants a replay to complete, and returns its result.
func (h *harness) replayed(args ...string) replay.Result {
	h.T.Helper()
	p := h.startReplay(args...)
	code, result := h.result(p)
	if code != 0 || !result.Complete || result.Remaining != 0 || result.Undelivered != 0 {
		h.T.Fatalf("replay %v: exit code %d, %+v\n%s", args, code, result, p.log.String())
	}
	return result
}

// replayFails wants a replay to fail at the endpoint of a path.
func (h *harness) replayFails(p *process, path, says string) replay.Result {
	h.T.Helper()
	code, result := h.result(p)
	if text := p.log.String(); code != 1 || !strings.Contains(text, path) || !strings.Contains(text, says) || !strings.Contains(text, "nothing is lost") {
		h.T.Fatalf("exit code %d:\n%s", code, text)
	}
	if result.Complete || result.Remaining == 0 || result.Undelivered == 0 {
		h.T.Errorf("result %+v", result)
	}
	return result
}

// letters is how many dead letters there are.
func (h *harness) letters() (n int64) {
	h.T.Helper()
	for _, end := range h.Ends(h.DeadLetters) {
		n += end
	}
	return n
}

// What an endpoint drops while it backs off is dead-lettered, in order, and
// comes to it with the replay; other endpoints notice nothing of either.
func replayOfDropped(h *harness) {
	const total = 6000
	ids := h.drop(h.Events(total), "hub")
	next, where, reasons := make(map[string]int), make(map[string]int32), make(map[string]int)
	for _, l := range h.Records(h.DeadLetters, total) {
		headers := env.HeadersOf(l)
		reasons[headers["reason"]]++
		if headers["endpoint"] != ids["hub"] || headers["topic"] != h.Topic || headers["index"] != "" || headers["time"] == "" ||
			!strings.Contains(headers["detail"], "both keys are refused") {
			h.T.Fatalf("headers %v", headers)
		}
		from := headers["partition"]
		if _, ok := where[from]; !ok {
			where[from] = l.Partition
		}
		if headers["offset"] != strconv.Itoa(next[from]) || l.Partition != where[from] {
			h.T.Fatalf("partition %s: offset %s in partition %d, want %d in %d", from, headers["offset"], l.Partition, next[from], where[from])
		}
		next[from]++
	}
	if reasons["backoff"] < total/2 || reasons["unauthorized"] != total-reasons["backoff"] || h.letters() != total {
		h.T.Errorf("reasons %v of %d letters", reasons, h.letters())
	}

	h.Repair("hub")
	result := h.replayed()
	if result.Letters != total || result.Delivered != total || len(result.Endpoints) != 1 || result.Endpoints[0].ID != ids["hub"] {
		h.T.Errorf("result %+v", result)
	}
	h.arrivedOnce(total, "hub", "topic")
	if again := h.replayed(); again.Letters != 0 {
		h.T.Errorf("a second replay read %d letters", again.Letters)
	}
}

// Without the option a drop is a count and nothing else.
func dropsNotKept(h *harness) {
	h.refuse("hub")
	r := h.run("one", nil)
	h.Produce(h.Events(1000)...)
	r.settled(1000)
	if n := h.letters(); n != 0 {
		h.T.Errorf("%d dead letters", n)
	}
}

// An event that the service refuses once more is counted and done with.
func replayOfRefused(h *harness) {
	h.SetEndpoints(h.Hub("SensorChange"))
	h.SetFault(emulator.Fault{Poison: `"Value":"7"`}, "hub")
	h.drop(append(h.Events(20), env.Value("garbage")))
	if n := h.letters(); n != 2 {
		h.T.Fatalf("%d letters, want the poisoned event and the garbage", n)
	}
	result := h.replayed()
	if result.Letters != 2 || result.RefusedAgain != 1 || result.Delivered != 0 || result.Skipped.NoEndpoint != 1 {
		h.T.Errorf("result %+v", result)
	}
	if e := result.Endpoints[0]; e.RefusedAgain != 1 || !strings.HasPrefix(e.LastRefusal, "rejected: ") {
		h.T.Errorf("endpoint %+v", e)
	}
	if n := h.letters(); n != 2 {
		h.T.Errorf("%d letters after the replay: it made new ones", n)
	}
	if again := h.replayed(); again.Letters != 0 {
		h.T.Errorf("a second replay read %d letters", again.Letters)
	}
	// Now the service takes the event: it is sent again if that is asked for.
	h.Repair("hub")
	if result := h.replayed("--endpoint", "hub"); result.Delivered != 0 || result.Skipped.ReplayedBefore != 1 {
		h.T.Errorf("result %+v", result)
	}
	if result := h.replayed("--endpoint", "hub", "--again"); result.Delivered != 1 {
		h.T.Errorf("result %+v", result)
	}
	if s := h.Services.Stats().Entity("hub"); s.Distinct != 20 || s.Count != 20 {
		h.T.Errorf("the hub has %d messages, %d distinct, want 20", s.Count, s.Distinct)
	}
}

// --endpoint sends one endpoint's letters, and leaves the others' for later;
// --since leaves out what was set aside before.
func replaySelections(h *harness) {
	const total = 1000
	first := h.run("first", nil)
	hub := first.at("hub").ID
	first.stop()
	h.Produce(&kgo.Record{
		Topic: h.DeadLetters, Timestamp: time.Now().Add(-3 * time.Hour), Value: env.Event(0, 0), // as if set aside long ago
		Headers: env.Headers("reason", "backoff", "topic", "elsewhere", "partition", "9", "offset", "9", "endpoint", hub, "time", "t"),
	})
	ids := h.drop(h.Events(total), "hub", "topic")
	h.Repair("topic") // the hub still fails
	for _, tt := range []struct {
		endpoint string
		want     uint64
	}{{"topic", total}, {ids["topic"], 0}} { // the same selection, by another word
		result := h.replayed("--endpoint", tt.endpoint)
		if result.Delivered != tt.want || tt.want > 0 && result.Skipped.OtherEndpoint != total+1 {
			h.T.Errorf("--endpoint %s: %+v", tt.endpoint, result)
		}
	}
	h.arrivedOnce(total, "topic")
	h.arrivedOnce(0, "hub")
	h.Repair("hub")
	// A dry run says what would be, and does nothing of it.
	dry, code := h.command(nil, "replay", "--dry-run", "--output", "json")
	var preview replay.Preview
	unmarshal(h.T, dry.out.String(), &preview)
	if code != 0 || preview.Send != total+1 || preview.Skipped.ReplayedBefore != total || len(preview.Earlier) != 1 || preview.Earlier[0].Endpoint != ids["topic"] {
		h.T.Errorf("exit code %d, %+v", code, preview)
	}
	h.arrivedOnce(0, "hub")
	// What the replay of the topic's was done with is not sent to it again.
	if result := h.replayed(); result.Delivered != total+1 || result.Skipped.ReplayedBefore != total {
		h.T.Errorf("result %+v", result)
	}
	h.arrivedOnce(0, "topic")
	for _, reason := range []string{"unauthorized", "backoff"} {
		result := h.replayed("--reason", reason, "--again", "--until", "10ms")
		if result.Delivered == 0 || result.Skipped.OtherReason == 0 {
			h.T.Errorf("--reason %s: %+v", reason, result)
		}
	}

	second := func() string { return time.Now().Format(time.RFC3339) }
	last := second() // letters of this very second would count
	env.Eventually(h.T, "the second is over", func() bool { return second() != last })
	for _, tt := range []struct {
		since string
		want  uint64
	}{
		{"1h", total},
		{time.Now().Add(-2 * time.Hour).Format(time.RFC3339), total}, // another selection, the same letters
		{"4h", total + 1},
		{second(), 0},
	} {
		if result := h.replayed("--endpoint", "hub", "--again", "--since", tt.since); result.Delivered != tt.want {
			h.T.Errorf("--since %q: %d delivered, want %d: %+v", tt.since, result.Delivered, tt.want, result)
		}
	}

	// A deleted endpoint's letters are nobody's; the other's go on.
	h.SetEndpoints(h.ServiceBus("SensorChange"))
	if result := h.replayed("--since", "1h", "--again"); result.Skipped.UnknownEndpoint != total || result.Delivered != total {
		h.T.Errorf("result %+v", result)
	}
	if p, code := h.command(nil, "replay", "--endpoint", "hub"); code != 2 || !strings.Contains(p.log.String(), ids["topic"]) {
		h.T.Errorf("exit code %d: %s", code, p.log.String())
	}
}

// Every form of event comes back as it would have gone out the first time:
// body, message id, content type and properties. Of what an endpoint drops and
// what is delivered at once the sum is the same.
func replayedAreTheSame(h *harness) {
	every := []string{"SensorChange", "SpaceChange", "UdfCustom", "TopologyOperation"}
	h.SetEndpoints(h.Hub(every...), h.ServiceBus(every...), h.Devices())
	h.drop(h.forms(), "hub", "devices")
	h.Repair("hub", "devices")
	if result := h.replayed(); result.Delivered != 10 {
		h.T.Errorf("result %+v", result)
	}
	replayed := h.messages("hub", "devices")
	fresh := newHarness(h.T, env.Config{Partitions: 4})
	fresh.SetEndpoints(fresh.Hub(every...), fresh.Devices())
	fresh.Produce(h.forms()...)
	fresh.run("fresh", nil).settled(len(h.forms()))
	same(h.T, "replayed", replayed, fresh.messages("hub", "devices"))
}

// However a replay ends in the middle, the next one goes on, and nothing is missing.
func replayEnds(signal syscall.Signal, want int) func(*harness) {
	return func(h *harness) {
		const total = 12_000
		h.SetEndpoints(h.Hub("SensorChange"))
		h.drop(h.Events(total), "hub")
		h.Repair("hub")
		h.slowDown("hub")
		first := h.startReplay()
		env.Eventually(h.T, "a part has arrived", func() bool { return h.Count("hub") > total/10 })
		first.signal(signal)
		if code := first.wait(); code != want {
			h.T.Errorf("exit code %d, want %d", code, want)
		}
		if text := first.log.String(); want == 1 && !strings.Contains(text, "letters remain; to go on, run the same command again") {
			h.T.Errorf("it says\n%s", text)
		}
		if before := h.Count("hub"); before >= total {
			h.T.Fatalf("all %d were delivered before the signal", before)
		}
		h.Repair("hub")
		h.replayed()
		if want == 1 {
			h.arrivedOnce(total, "hub")
		} else {
			h.arrived(total, "hub")
		}
	}
}

// Two replays of one selection share the work, and both end.
func twoReplays(h *harness) {
	const total = 6000
	h.SetEndpoints(h.Hub("SensorChange"))
	h.drop(h.Events(total), "hub")
	h.Repair("hub")
	h.slowDown("hub")
	for _, p := range []*process{h.startReplay(), h.startReplay()} {
		if code := p.wait(); code != 0 {
			h.T.Errorf("exit code %d:\n%s", code, p.log.String())
		}
	}
	h.arrived(total, "hub")
}

// An endpoint that fails, at once or in the middle, ends the replay, and what
// it didn't take is there for the next one. So does one that would take what
// comes behind: that must not overtake the events that it didn't take.
func replayFailures(h *harness) {
	const total = 6000
	h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SensorChange"))
	h.drop(h.Events(total), "hub")
	result := h.replayFails(h.startReplay(), "hub", "unauthorized")
	if result.Delivered != 0 || result.Remaining != total {
		h.T.Errorf("result %+v", result)
	}
	h.Repair("hub")
	h.slowDown("hub")
	p := h.startReplay()
	env.Eventually(h.T, "a part has arrived", func() bool { return h.Count("hub") > total/10 })
	h.refuse("hub")
	if result := h.replayFails(p, "hub", "unauthorized"); result.Remaining < int64(total-h.Count("hub")) {
		h.T.Errorf("%d letters remain, but only %d were delivered", result.Remaining, h.Count("hub"))
	}
	h.Repair("hub")
	h.replayed()
	h.arrived(total, "hub")
}

func replayDoesNotOvertake(h *harness) {
	const total = 2000
	h.SetEndpoints(h.Grid("SensorChange"))
	h.drop(h.Events(total), "grid")
	// All tries of the first batch fail; the second would go through.
	h.SetFault(emulator.Fault{Status: 503, Times: 3}, "grid")
	result := h.replayFails(h.startReplay(), h.Services.EventGridHost("grid"), "503")
	if result.Delivered != 0 || result.Remaining != total {
		h.T.Errorf("%+v", result)
	}
	h.arrivedOnce(0, "grid")
	h.replayed()
	h.arrivedOnce(total, "grid")
}

// An endpoint whose overflow is dropped gets all of its letters: a replay waits.
func replayDoesNotOverflow(h *harness) {
	const total = 3000
	h.SetEndpoints(h.Hub("SensorChange"))
	h.drop(h.Events(total), "hub")
	h.Repair("hub")
	h.SetEndpoints(h.Hub("SensorChange").With("overflow", "drop"))
	h.slowDown("hub")
	if result := h.replayed(); result.Delivered != total {
		h.T.Errorf("result %+v", result)
	}
	h.arrivedOnce(total, "hub")
}

// Of an array of many elements the letters don't repeat what belongs to all of
// it, and yet each element is sent as it would have been the first time. What an
// endpoint wouldn't get if it came today isn't sent, whoever wrote the letter.
func replayOfArrays(h *harness) {
	const elements = 30
	h.SetEndpoints(h.Hub("SensorChange").With("filter", "AS_NUMBER($body.Value) < 1000"))
	array := func() *kgo.Record {
		var bodies [][]byte
		for _, e := range h.Events(elements) {
			bodies = append(bodies, e.Value)
		}
		return &kgo.Record{
			Key:     bytes.Repeat([]byte("k"), 10_000),
			Value:   slices.Concat([]byte("["), bytes.Join(bodies, []byte(",")), []byte("]")),
			Headers: env.Headers("large", strings.Repeat("x", 100_000), "traceparent", "00-ab-cd-01"),
		}
	}
	ids := h.drop([]*kgo.Record{array(), array()}, "hub")
	if n := h.letters(); n != 2*elements {
		h.T.Fatalf("%d letters", n)
	}
	size := 0
	for _, l := range h.Records(h.DeadLetters, 2*elements) {
		size += len(l.Key) + len(l.Value)
		for _, header := range l.Headers {
			size += len(header.Value)
		}
	}
	if size > 20*120_000*2 {
		h.T.Errorf("the letters have %d bytes", size)
	}

	made := func(value string, headers ...string) {
		headers = append([]string{"reason", "backoff", "topic", h.Topic, "partition", "0", "offset", "9", "endpoint", ids["hub"]}, headers...)
		h.Produce(&kgo.Record{Topic: h.DeadLetters, Value: []byte(value), Headers: env.Headers(append(headers, "time", "t")...)})
	}
	good := string(env.Event(0, 99))
	made(strings.Replace(good, "SensorChange", "SpaceChange", 1))
	made(strings.Replace(good, `"Value":"99"`, `"Value":"1000"`, 1))
	made("["+good+","+good+"]", "index", "1")
	made("[1,2,3]")
	made("[]")
	made(good, "cut", "headers")
	made(good, "index", "3", "cut", "value")
	made(good, "index", "4", "cut", "key,headers")

	h.Repair("hub")
	result := h.replayed()
	want := replay.Skipped{Unrouted: 2, Unreadable: 3, Cut: 2}
	if result.Delivered != 2*elements+1 || result.Skipped != want {
		h.T.Errorf("result %+v", result)
	}
	arrived := make(map[string]string)
	for _, m := range h.Services.Messages("hub") {
		arrived[strings.TrimPrefix(m.MessageID, h.Topic+"/")] = string(m.Body)
		if trace := m.Properties["traceparent"]; trace != "00-ab-cd-01" && m.MessageID != h.Topic+"/0/9/4" {
			h.T.Errorf("%s: traceparent %v", m.MessageID, trace)
		}
	}
	for offset := range 2 {
		for i := range elements {
			id := fmt.Sprintf("0/%d/%d", offset, i)
			if want := string(env.Event(0, int64(offset*elements+i))); arrived[id] != want {
				h.T.Errorf("%s is %q, want %q", id, arrived[id], want)
			}
		}
	}
	if len(arrived) != 2*elements+1 || arrived["0/9/4"] != good {
		h.T.Errorf("%d messages", len(arrived))
	}
}
