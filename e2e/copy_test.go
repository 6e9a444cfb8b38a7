//go:build integration

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"twinegress/internal/procgroup"
	"twinegress/pipeline"
)

const apiToken = "let the tests see"

// replica is one copy of twinegress: a process, and the one after it when it
// is started again.
type replica struct {
	w    *world
	name string
	env  []string
	log  string

	mu      sync.Mutex
	cmd     *exec.Cmd
	running chan struct{} // closed when the process serves
	ended   chan struct{}
	api     string
	ops     string
}

// replica describes a copy; start starts it.
func (w *world) replica(name string, more settings) *replica {
	r := &replica{w: w, name: name, env: w.environment(more), log: filepath.Join(w.dir, name+".log")}
	w.t.Cleanup(func() {
		if r.cmd != nil {
			r.signal(syscall.SIGKILL)
			<-r.ended
		}
		if w.t.Failed() {
			w.t.Logf("the end of %s's log:\n%s", name, tail(r.log, 60))
			keepLog(w.t, r.log)
		}
	})
	return r
}

// run starts a copy and waits until it is ready.
func (w *world) run(name string, more settings) *replica {
	w.t.Helper()
	r := w.replica(name, more)
	r.start()
	r.awaitReady()
	return r
}

// keepLog saves a log that is of interest from the end of the test's directory.
func keepLog(t testing.TB, log string) {
	dir := os.Getenv("E2E_LOGS")
	if dir == "" {
		return
	}
	b, err := os.ReadFile(log)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+"-"+filepath.Base(log)), b, 0o600)
	}
	if err != nil {
		t.Log(err)
	}
}

func tail(file string, n int) string {
	b, _ := os.ReadFile(file)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// start starts the process.
func (r *replica) start() {
	r.w.t.Helper()
	cmd := exec.CommandContext(context.Background(), binary, "run")
	cmd.Env = append(os.Environ(), r.env...)
	out, err := cmd.StderrPipe()
	if err != nil {
		r.w.t.Fatal(err)
	}
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.w.t.Fatal(err)
	}
	running, ended := make(chan struct{}), make(chan struct{})
	r.mu.Lock()
	r.cmd, r.running, r.ended = cmd, running, ended
	r.mu.Unlock()
	if err := procs.Start(cmd); err != nil {
		r.w.t.Fatal(err)
	}
	go func() {
		defer close(ended)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			_, _ = log.WriteString(line) // what can't be kept is not what a test is about
			var entry struct{ Msg, API, Ops string }
			if strings.Contains(line, `"twinegress runs"`) && json.Unmarshal([]byte(line), &entry) == nil {
				r.mu.Lock()
				r.api, r.ops = "http://"+entry.API, "http://"+entry.Ops
				r.mu.Unlock()
				close(running)
			}
			if err != nil {
				break
			}
		}
		_ = log.Close()
		_ = cmd.Wait() // ProcessState says how it ended
	}()
}

// awaitRunning waits until the copy serves.
func (r *replica) awaitRunning() {
	r.w.t.Helper()
	select {
	case <-r.running:
	case <-r.ended:
		r.w.t.Fatalf("%s ended while starting:\n%s", r.name, tail(r.log, 20))
	case <-time.After(patience):
		r.w.t.Fatalf("%s doesn't run:\n%s", r.name, tail(r.log, 20))
	}
}

// awaitReady waits until the copy has joined the group.
func (r *replica) awaitReady() {
	r.w.t.Helper()
	r.awaitRunning()
	eventually(r.w.t, r.name+" is ready", r.ready)
}

func (r *replica) ready() bool {
	code, _ := r.get(r.ops + "/readyz")
	return code == http.StatusOK
}

func (r *replica) signal(s syscall.Signal) {
	r.w.t.Helper()
	if err := procgroup.Signal(r.cmd, s); err != nil {
		r.w.t.Fatal(err)
	}
}

// stop stops the copy in order and returns its exit code.
func (r *replica) stop() int {
	r.w.t.Helper()
	r.signal(syscall.SIGTERM)
	return r.wait()
}

// kill kills it.
func (r *replica) kill() {
	r.w.t.Helper()
	r.signal(syscall.SIGKILL)
	r.wait()
}

// wait waits for its end and returns its exit code.
func (r *replica) wait() int {
	r.w.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.w.t.Fatalf("%s doesn't end:\n%s", r.name, tail(r.log, 20))
	}
	return r.cmd.ProcessState.ExitCode()
}

// cpu is the processor time that the process has taken so far.
func (r *replica) cpu() time.Duration {
	r.w.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		r.w.t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		r.w.t.Fatal(err)
	}
	return time.Duration(user+system) * (time.Second / 100) // clock ticks: 100 a second on every Linux
}

// memory is the resident size in bytes, now and at its highest.
func (r *replica) memory() (now, peak int64) {
	r.w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		r.w.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			now = kb << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			peak = kb << 10
		}
	}
	return now, peak
}

var httpClient = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (r *replica) get(url string) (int, []byte) {
	request, err := http.NewRequestWithContext(r.w.t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil
	}
	request.Header.Set("Authorization", "Bearer "+apiToken)
	response, err := httpClient.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	var b strings.Builder
	_, _ = bufio.NewReader(response.Body).WriteTo(&b) // what is cut off doesn't parse
	return response.StatusCode, []byte(b.String())
}

// management is where the Management API is; it moves when the copy is started again.
func (r *replica) management() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.api + "/management/api/v1.0"
}

// status is what the copy says of itself; the zero one if it doesn't answer.
func (r *replica) status() (st pipeline.Status) {
	if code, body := r.get(r.management() + "/status"); code == http.StatusOK {
		if err := json.Unmarshal(body, &st); err != nil {
			r.w.t.Errorf("%s's status: %v", r.name, err)
		}
	}
	return st
}

// logged tells whether the log has all of these words in one line.
func (r *replica) logged(words ...string) bool {
	b, _ := os.ReadFile(r.log)
line:
	for line := range strings.Lines(string(b)) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue line
			}
		}
		return true
	}
	return false
}
