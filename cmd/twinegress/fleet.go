package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	xterm "golang.org/x/term"

	"twinegress/cmd/twinegress/internal/fleetview"
	"twinegress/cmd/twinegress/internal/term"
)

const (
	// pollInterval is how often a live view asks. It waits four times as long as an
	// answer takes, too: of ten thousand endpoints one takes a while.
	pollInterval = time.Second
	// pollTimeout is when a live view stops waiting for an answer.
	pollTimeout = 10 * time.Second
	// lateAfter is when a live view says that no answer has come yet.
	lateAfter = 2 * time.Second
)

// fleet asks for the fleet; of a server that has none, for its own status. It returns
// the reply as it came, too; nil if that is a status.
func (a *apiClient) fleet(ctx context.Context) (*fleetview.Fleet, json.RawMessage, error) {
	r, err := a.do(ctx, call{method: http.MethodGet, what: "/fleet"})
	if no, ok := errors.AsType[replyRefusal](err); ok && no.code == http.StatusNotFound {
		if r, err = a.do(ctx, call{method: http.MethodGet, what: "/status"}); err != nil {
			return nil, nil, err
		}
		f, err := fleetview.OfStatus(r.body, time.Now())
		if err != nil {
			err = unreadable(err)
		}
		return f, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	f := new(fleetview.Fleet)
	return f, r.body, r.decode(f)
}

// live is a view that is refreshed until it is ended.
type live struct {
	sort   string
	show   func(*fleetview.Frame)
	keys   <-chan byte // what is typed; nil without a terminal
	redraw bool        // between the answers too: times go on
	closed func() bool // nobody reads any more
}

// watch asks again and again, and shows the answers, until ctx ends, the output is
// closed, or q or Ctrl-C is typed. Only a first request that fails is an error: later
// what was known is shown on, with its age.
func (a *apiClient) watch(ctx context.Context, v live) error {
	type answer struct {
		fleet *fleetview.Fleet
		err   error
		took  time.Duration
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer)
	go func() { // ends with ctx
		for {
			begun := time.Now()
			within, done := context.WithTimeout(ctx, pollTimeout)
			f, _, err := a.fleet(within)
			done()
			took := time.Since(begun)
			select {
			case answers <- answer{f, err, took}:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(max(pollInterval, 4*took)):
			case <-ctx.Done():
				return
			}
		}
	}()
	var history fleetview.History
	var failed error
	var answered time.Time // zero: not once
	pause := pollInterval
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case got := <-answers:
			switch {
			case got.err != nil && answered.IsZero():
				return got.err
			case got.err != nil:
				failed = got.err
			default:
				history.Add(got.fleet)
				answered, failed, pause = time.Now(), nil, max(pollInterval, 4*got.took)
			}
		case key := <-v.keys:
			switch key {
			case 'q', 'Q', 3: // Ctrl-C
				return nil
			case 's':
				v.sort = fleetview.NextSort(v.sort)
			}
		case <-tick.C:
			if !v.redraw {
				continue
			}
		case <-ctx.Done():
			return nil
		}
		if answered.IsZero() {
			continue
		}
		frame := history.Frame(v.sort)
		frame.Server, frame.Now, frame.Failed, frame.Since = a.server, time.Now(), failed, answered
		if failed == nil && frame.Now.Sub(answered) > pause+lateAfter {
			frame.Failed = errors.New("it has been asked")
		}
		v.show(frame)
		if v.closed != nil && v.closed() {
			return nil
		}
	}
}

// typed returns the keys that are typed on standard input, one by one, until restore
// is called: nil if it is no terminal. The goroutine that reads them ends with the
// process, since a read of a terminal can't be interrupted.
func typed(in any) (keys <-chan byte, restore func()) {
	f, ok := in.(*os.File)
	if !ok || !xterm.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	before, err := xterm.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, func() {}
	}
	all := make(chan byte)
	go func() {
		for one := make([]byte, 1); ; {
			if n, err := f.Read(one); err != nil || n == 0 {
				return
			}
			all <- one[0]
		}
	}()
	return all, func() { _ = xterm.Restore(int(f.Fd()), before) }
}

// styles are those of a screen.
func styles() term.Styles { return term.NewStyles(os.Getenv("NO_COLOR") == "") }
