//go:build integration

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"twinegress/e2e/env"
)

// older builds the program as it was before it knew positions, and returns its path. The
// commit is found in the history, which a shallow clone doesn't have.
var older = sync.OnceValues(func() (path string, err error) {
	run := func(dir, name string, args ...string) (string, error) {
		c := exec.CommandContext(context.Background(), name, args...)
		c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
		out, err := c.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out)), nil
	}
	found, err := run("..", "git", "log", "--reverse", "--format=%H", "-S", "type Ownership struct", "--", "internal/event")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(found, "\n")
	dir := filepath.Join(sharedDir, "older")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	sources := filepath.Join(sharedDir, "older.tar")
	if _, err := run("..", "git", "archive", "--output="+sources, first+"^"); err != nil {
		return "", err
	}
	if _, err := run(dir, "tar", "-xf", sources); err != nil {
		return "", err
	}
	path = filepath.Join(sharedDir, "twinegress-older")
	_, err = run(dir, "go", "build", "-o", path, "./cmd/twinegress")
	return path, err
})

// A copy from before positions joins the group while endpoints are behind, commits
// without the lists, and leaves. What is missing in the end is said: by that copy, as
// dropped, or by the newer one, as lost with its list.
func TestOlderCopy(t *testing.T) {
	path, err := older()
	shallow, _ := exec.CommandContext(t.Context(), "git", "rev-parse", "--is-shallow-repository").Output()
	switch hasHistory := strings.TrimSpace(string(shallow)) == "false"; {
	case err != nil && hasHistory && os.Getenv("CI") != "": // there is no excuse
		t.Fatal("no build of the version before positions: ", err)
	case err != nil:
		t.Skip("SKIPPED: no build of the version before positions: ", err)
	}
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			h := newHarness(t, env.Config{Partitions: behindPartitions, Brokers: brokers(t)})
			h.protocol = protocol
			b := h.behind(1, nil)
			newer := b.copies[0]

			// The same endpoints, in words that it knows.
			set := h.everyType()
			file := h.Write("older.json", nil)
			h.Must(writeEndpoints(file, set))
			copyBefore := h.replica("older", env.Settings{"backoff.max": "1s", "endpoints.file": file})
			copyBefore.program = path
			copyBefore.environment = slices.DeleteFunc(copyBefore.environment, func(variable string) bool {
				return strings.HasPrefix(variable, "TWINEGRESS_POSITIONS_") // which it doesn't know
			})

			// Up, down and up again while everything works: nothing is lost.
			b.copies = append(b.copies, copyBefore)
			copyBefore.start()
			copyBefore.awaitReady()
			b.awaitShares(false)
			b.load.flows("both copies take part", everywhere...)
			copyBefore.stop()
			b.copies = b.copies[:1]
			b.awaitShares(false)
			b.load.flows("the newer copy goes on", everywhere...)
			for _, entity := range everywhere {
				if s := h.Ledger.Take(entity, nil); s.Lost+s.Reordered+s.Repeats > 0 {
					t.Errorf("%s while all is well: %+v", entity, s)
				}
			}

			b.leave(2 * behindRate)
			copyBefore.start()
			copyBefore.awaitReady()
			b.copies = append(b.copies, copyBefore)
			b.awaitShares(false)
			env.Eventually(t, "the older copy drops", func() bool {
				return dropped(copyBefore.at("hub")) > behindRate/2
			})
			b.load.pause()
			b.load.flows("the endpoint that never fails gets everything", "topic")
			h.AwaitCommitted()
			given := map[string]uint64{"hub": dropped(copyBefore.at("hub")), "grid": dropped(copyBefore.at(h.Services.EventGridHost("grid")))}
			copyBefore.stop()
			b.copies = b.copies[:1]
			b.awaitShares(false)
			h.Repair(leavers...)
			b.load.resume()
			for _, name := range leavers {
				env.Eventually(t, name+" has joined", func() bool { return b.live(name) })
			}
			b.load.pause()
			h.allCommitted(newer)
			for _, name := range leavers {
				env.Eventually(t, name+" is live", func() bool { return b.live(name) })
			}
			metrics := newer.metrics()
			for _, entity := range everywhere {
				s := h.Ledger.Take(entity, nil)
				silent := s.Lost - int(given[entity])
				t.Logf("%s: %d of %d events are missing, %d of them dropped by the older copy; %d reordered, %d repeats",
					entity, s.Lost, b.load.total(), given[entity], s.Reordered, s.Repeats)
				if silent > 0 && (newer.number(metrics, "twinegress_positions_lost_total %g") == 0 || !newer.logged(`"level":"error"`, "positions")) {
					t.Errorf("%s: %d events are missing that nobody says anything of", entity, silent)
				}
				if entity == "topic" && s.Lost+s.Reordered > 0 || s.Reordered > 0 {
					t.Errorf("%s: %+v", entity, s)
				}
			}
		})
	}
}

func writeEndpoints(file string, set []env.Endpoint) error {
	parts := make([]string, len(set))
	for i, e := range set {
		parts[i] = string(e.JSON())
	}
	return os.WriteFile(file, []byte("["+strings.Join(parts, ",")+"]"), 0o600)
}
