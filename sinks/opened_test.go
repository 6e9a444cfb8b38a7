package sinks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/untrusted"
)

const (
	primaryKey   = "cHJpbWFyeStrZXkvb2YvdGhlL3Rlc3Q/Pz8+Pj4="
	secondaryKey = "c2Vjb25kYXJ5K2tleS9vZi90aGUvdGVzdD8/Pz4+Pg=="
)

// keyed is hub with keys as they are.
func keyed() endpoints.Endpoint {
	e := hub
	e.ConnectionString = "Endpoint=sb://ns.example/;SharedAccessKeyName=send;SharedAccessKey=" + primaryKey
	e.SecondaryConnectionString = "Endpoint=sb://ns.example/;SharedAccessKeyName=send;SharedAccessKey=" + secondaryKey
	return e
}

// echo is what a service says that repeats what it was sent, steers the reader's
// terminal, and does not stop.
var echo = func() string {
	said := "\x1b]0;owned\x07 \u202e"
	for _, key := range []string{primaryKey, secondaryKey} {
		said += strings.Join([]string{key, url.QueryEscape(key), base64.StdEncoding.EncodeToString([]byte("key=" + key)), "Endpoint=sb://ns.example/;SharedAccessKey=" + key}, " ")
	}
	return said + strings.Repeat(" and so on", 1<<20)
}()

// checkWords fails if a text is not fit to be shown.
func checkWords(t *testing.T, where, text string) {
	t.Helper()
	if len(text) > 3*untrusted.MaxLength {
		t.Errorf("%s has %d bytes", where, len(text))
		text = text[:untrusted.MaxLength]
	}
	for _, key := range []string{primaryKey, secondaryKey} {
		for _, part := range []string{key[:12], url.QueryEscape(key)[:16], base64.StdEncoding.EncodeToString([]byte("key=" + key))[8:24]} {
			if strings.Contains(text, part) {
				t.Errorf("%s shows a key: %s", where, text)
			}
		}
	}
	if strings.ContainsAny(text, "\x1b\x07\u202e") {
		t.Errorf("%s has control characters: %q", where, text)
	}
}

// Whatever a service says, and for whatever reason: status, log and dead letters
// show no key, no control character and no megabytes of it.
func TestWordsOfAService(t *testing.T) {
	cases := map[string]struct {
		err  error
		want event.Reason
	}{
		"unreachable":    {refusal(event.Unreachable, 0), event.Unreachable},
		"not classified": {errTest, event.Unreachable},
		"unauthorized":   {refusal(event.Unauthorized, 0), event.Unauthorized},
		"throttled":      {refusal(event.Throttled, time.Hour), event.Throttled},
		"rejected":       {refusal(event.Rejected, 0), event.Rejected},
		"too large":      {refusal(event.TooLarge, 0), event.TooLarge},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.KeepDropped = true
				h := newHarness(t, keyed(), options)
				said := fmt.Errorf("it says: %s", echo)
				h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
					if e, ok := errors.AsType[*Error](test.err); ok {
						return len(events), &Error{Reason: e.Reason, Wait: e.Wait, Err: said}
					}
					return len(events), said
				}
				h.put(0, 1)
				advance(time.Minute)
				h.put(0, 1) // dropped in the back-off, or rejected as well
				advance(time.Minute)
				if n := h.snapshot().Counts.Dropped[test.want]; n == 0 {
					t.Errorf("none is dropped as %s", test.want)
				}
				checkWords(t, "lastError", h.snapshot().LastError)
				if len(h.letters.got) != 2 {
					t.Errorf("%d dead letters, want 2", len(h.letters.got))
				}
				for _, l := range h.letters.got {
					if !strings.Contains(l.detail, "it says: ") {
						t.Errorf("a detail does not say why: %q", l.detail)
					}
					checkWords(t, "a detail", l.detail)
				}
				encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
				for _, entry := range h.logs.All() {
					line, err := encoder.EncodeEntry(entry.Entry, entry.Context)
					if err != nil {
						t.Fatal(err)
					}
					checkWords(t, "a log line", line.String())
				}
				h.finish()
			})
		})
	}
}

// failing is a sink of which everything fails.
type failing struct{ err error }

func (f failing) Send(context.Context, []*event.Event) (int, error) { return 0, f.err }
func (f failing) Check(context.Context) error                       { return f.err }
func (f failing) Close(context.Context) error                       { return f.err }

func TestCheckShowsNoSecret(t *testing.T) {
	said := errors.New(echo)
	cases := map[string]Open{
		"not opened":     func(endpoints.Endpoint, Key) (Sink, error) { return nil, said },
		"not classified": func(endpoints.Endpoint, Key) (Sink, error) { return failing{said}, nil },
		"classified": func(endpoints.Endpoint, Key) (Sink, error) {
			return failing{&Error{Reason: event.Rejected, Err: said}}, nil
		},
	}
	for name, open := range cases {
		t.Run(name, func(t *testing.T) {
			err := Check(t.Context(), open, keyed(), Primary)
			if err == nil {
				t.Fatal("no error")
			}
			checkWords(t, "the error", err.Error())
		})
	}
}

// Also what is said while a connection is closed.
func TestCloseShowsNoSecret(t *testing.T) {
	c := newConnection(keyed(), func(endpoints.Endpoint, Key) (Sink, error) { return failing{errors.New(echo)}, nil }, nil, nil)
	if n, err := c.failover(t.Context(), nil, noProbe); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	err := c.close(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	checkWords(t, "the error", err.Error())
}
