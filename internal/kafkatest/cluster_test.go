//go:build integration

package kafkatest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

// asVictim makes the test binary start a cluster and wait to be killed.
const asVictim = "TWINEGRESS_TEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asVictim); dir != "" {
		victim(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func victim(dir string) {
	c, err := Start(context.Background(), Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.nodes[0].process.cmd.Process.Pid)
	select {}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A topic with three replicas survives the kill of each node in turn.
func TestThreeNodes(t *testing.T) {
	ctx := within(t)
	c, err := Start(ctx, Config{Nodes: 3, Dir: t.TempDir(), Properties: map[string]string{
		"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("t"),
		kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 3, 3, map[string]*string{"min.insync.replicas": kadm.StringPtr("2")}, "t"); err != nil {
		t.Fatal(err)
	}
	produce := func() {
		t.Helper()
		records := make([]*kgo.Record, 30)
		for i := range records {
			records[i] = &kgo.Record{Value: []byte("v"), Partition: int32(i % 3)}
		}
		if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produce()
	ends := map[int32]func(int32) error{
		1: c.Kill,
		2: func(id int32) error { return c.Stop(ctx, id) },
		3: c.Suspend,
	}
	for id, end := range ends {
		if err := end(id); err != nil {
			t.Fatal(err)
		}
		produce()
		if id == 3 {
			err = c.Resume(id)
		} else {
			err = c.Restart(ctx, id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.awaitBrokers(ctx); err != nil {
		t.Fatal(err)
	}
	produce()
}

// Records survive a restart of the whole cluster on the same directory.
func TestStartAgain(t *testing.T) {
	ctx := within(t)
	dir := t.TempDir()
	for i := range 2 {
		c, err := Start(ctx, Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
		if err != nil {
			t.Fatal(err)
		}
		admin := kadm.NewClient(client)
		if i == 0 {
			_, err = admin.CreateTopic(ctx, 1, -1, nil, "t")
		}
		if err != nil {
			t.Fatal(err)
		}
		topics, err := admin.ListTopics(ctx)
		if err != nil || !topics.Has("t") {
			t.Errorf("start %d: topics %v, %v", i, topics.Names(), err)
		}
		client.Close()
		if err := c.Stop(ctx, 1); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// The brokers of a program that is killed end.
func TestNothingOutlivesItsProgram(t *testing.T) {
	ctx := within(t)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), asVictim+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(strings.TrimSpace(line), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the broker %d isn't there: %v", pid, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	for !hasEnded(pid) {
		select {
		case <-ctx.Done():
			t.Fatalf("the broker %d is still there", pid)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// hasEnded reports whether a process has ended; a zombie has.
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// A start that fails returns the cause and leaves no process.
func TestStartFails(t *testing.T) {
	_, err := Start(within(t), Config{Dir: t.TempDir(), Properties: map[string]string{"process.roles": "cook"}})
	if err == nil || !strings.Contains(err.Error(), "process.roles") {
		t.Errorf("error %v", err)
	}
}
