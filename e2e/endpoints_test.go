//go:build integration

package e2e

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
)

// Two copies with the endpoints in a topic. A hundred writers change them
// through the API of both, and the copies are killed by turns. What was
// acknowledged is so in the end, at every copy, and nothing else is; and there
// is never more than one endpoint for DeviceMessage.
func TestEndpointsThroughKills(t *testing.T) {
	const writers, rivals, kills = 50, 4, 16 // writers at each copy, of which rivals want DeviceMessage
	w := newWorld(t, brokers(t), 1, nil)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	inTopic := settings{
		"endpoints.store": "kafka", "endpoints.topic": w.topic + "-endpoints",
		"endpoints.secretsKeyFile": w.write("secrets.key", []byte(key.String())),
		"api.rateLimit":            "1000000", // a writer waits for the table only
		"api.tokensFile": w.write("writers.yaml",
			fmt.Appendf(nil, "[{name: e2e, role: write, sha256: %x}]", sha256.Sum256([]byte(apiToken)))),
	}
	copies := []*replica{w.run("one", inTopic), w.run("two", inTopic)}

	b := newBook(t)
	begun := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait() // where the test fails before its end, too
	defer b.cancel()
	for _, r := range copies {
		for i := range writers {
			wr := &writer{book: b, at: r, name: fmt.Sprintf("%s-%d", r.name, i)}
			if i < rivals {
				wg.Go(func() { wr.rounds(w.amqp("EventHub", "devices", "DeviceMessage"), wr.contend) })
			} else {
				wg.Go(func() { wr.rounds(w.hub(), wr.change) })
			}
		}
	}
	flows := func(r *replica) {
		t.Helper()
		before := b.acknowledged(r)
		eventually(t, r.name+" acknowledges changes", func() bool { return b.acknowledged(r) >= before+writers })
	}
	for i := range kills {
		r := copies[i%len(copies)]
		flows(r)
		<-time.After(rand.N(500 * time.Millisecond)) // wherever in a change that is
		r.kill()
		r.start()
	}
	for _, r := range copies {
		flows(r)
	}
	close(b.last)
	wg.Wait()
	t.Logf("%.1f s, %d kills: %s", time.Since(begun).Seconds(), kills, b)
	if b.cutOff == 0 || b.refused == 0 {
		t.Errorf("%d requests were cut off, %d rivals refused: the test proves nothing", b.cutOff, b.refused)
	}

	// One more copy has only what is in the topic; and once it has made a
	// change of its own, all of that.
	third := w.replica("three", inTopic)
	third.start()
	third.awaitRunning()
	(&writer{book: b, at: third, name: "last"}).create("last", w.hub())
	table := third.table()
	b.compare(table)
	for _, r := range copies {
		var other map[string]listed
		eventually(t, r.name+" lists as many endpoints as three", func() bool { other = r.table(); return len(other) == len(table) })
		if !maps.Equal(other, table) {
			t.Errorf("%s and three differ:\n%v\n%v", r.name, other, table)
		}
	}
}
