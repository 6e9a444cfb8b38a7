package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
)

func (r *env) seek(body, query string) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.do(call{method: "POST", path: Base + "/endpoints/" + hubID + "/seek" + query, body: body})
}

// A seek is stored once, says what it is about, and is audited. One that is only tried
// changes nothing.
func TestSeek(t *testing.T) {
	r := newEnv(t)
	from, reaches := time.Date(2026, 1, 31, 8, 0, 1, 0, time.UTC), time.Date(2026, 1, 24, 8, 0, 0, 0, time.FixedZone("", 3600))
	r.preview, r.backlog = Preview{Offsets: 7, From: from, Reaches: reaches}, 5
	tag := r.tag()
	const rest = `"dryRun":true,"offsets":7,"fromAt":"2026-01-31T08:00:01Z","oldestAt":"2026-01-24T07:00:00Z","notice":""}`
	w := r.seek(`{"to":"2026-01-31T09:00:00+01:00"}`, "?DryRun=true")
	want := `{"id":"` + hubID + `","name":"changes","type":"EventHub","host":"ns.servicebus.windows.net","path":"hub","seekTo":"2026-01-31T08:00:00Z","seekAt":"",` + rest
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != want || w.Header().Get("ETag") != tag {
		t.Errorf("tried: %d, ETag %s of %s\n%s\nwant\n%s", w.Code, w.Header().Get("ETag"), tag, w.Body, want)
	}
	if e := r.stored(hubID); e.SeekTo != "" || e.SeekAt != "" {
		t.Errorf("tried, and stored: %+v", endpoints.Document(e))
	}

	begun := time.Now()
	w = r.seek(`{"To":"Earliest"}`, "?dryRun=false")
	s, e := decode[Seek](t, w), r.stored(hubID)
	at, err := time.Parse(time.RFC3339Nano, e.SeekAt)
	if w.Code != 202 || s.SeekTo != "earliest" || s.DryRun || e.SeekTo != s.SeekTo || e.SeekAt != s.SeekAt || err != nil || at.Before(begun) || at.After(time.Now()) {
		t.Errorf("%d %+v, stored %+v, %v", w.Code, s, endpoints.Document(e), err)
	}
	if now := r.tag(); w.Header().Get("ETag") != now || now == tag {
		t.Errorf("ETag %s, is %s", w.Header().Get("ETag"), now)
	}
	if want := []string{"2026-01-31T08:00:00Z", "earliest"}; !slices.Equal(r.asked, want) {
		t.Errorf("previews of %v", r.asked)
	}

	// What was skipped is the endpoint's backlog.
	r.settle()
	if s := decode[Seek](t, r.seek(`{"to":"latest"}`, "")); s.Offsets == nil || *s.Offsets != 5 || s.FromAt != nil || s.OldestAt == nil || s.Notice != "" {
		t.Errorf("latest: %+v", s)
	}
	// What a cancelled one is about each copy knows.
	if s := decode[Seek](t, r.seek(`{"to":"cancel"}`, "")); s.Offsets != nil || s.OldestAt != nil || r.stored(hubID).SeekTo != endpoints.Cancel {
		t.Errorf("cancel: %+v", s)
	}
	// How long ago is a time from then on.
	s = decode[Seek](t, r.seek(`{"to":" 90m "}`, ""))
	if at, err := time.Parse(time.RFC3339Nano, s.SeekTo); err != nil || time.Since(at).Round(time.Minute) != 90*time.Minute || r.stored(hubID).SeekTo != s.SeekTo {
		t.Errorf("90 minutes ago: %+v", s)
	}

	var audited []string
	for _, entry := range r.logs.FilterMessage("endpoint's seek ordered").All() {
		audited = append(audited, fmt.Sprint(entry.ContextMap()["who"], " ", entry.ContextMap()["seekTo"], " ", entry.ContextMap()["endpoint"]))
	}
	if want := []string{"ops earliest " + hubID, "ops latest " + hubID, "ops cancel " + hubID, "ops " + s.SeekTo + " " + hubID}; !slices.Equal(audited, want) {
		t.Errorf("audited %q, want %q", audited, want)
	}
}

// settle makes the last seek of the hub one that was ordered a while ago.
func (r *env) settle() {
	r.t.Helper()
	_, err := r.store.Change(r.t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		i := indexOf(set, hubID)
		set[i] = set[i].Seek(set[i].SeekTo, time.Now().Add(-seekSettles))
		return set, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// One seek at a time: the one that goes back must know to where.
func TestSeekBesideAnother(t *testing.T) {
	r := newEnv(t)
	expect := func(what, to string, code int, says string) {
		t.Helper()
		for _, query := range []string{"?dryRun=true", ""} {
			before := r.stored(hubID)
			w := r.seek(`{"to":"`+to+`"}`, query)
			if want := code; w.Code != want && (want != 202 || query == "" || w.Code != 200) {
				t.Errorf("%s%s: %d %s", what, query, w.Code, w.Body)
			}
			if says != "" && !strings.Contains(errorOf(t, w).Message, says) {
				t.Errorf("%s%s: %s, want %q", what, query, w.Body, says)
			}
			if after := r.stored(hubID); w.Code != 202 && !after.Equal(before) {
				t.Errorf("%s%s: refused, and stored: %+v", what, query, endpoints.Document(after))
			}
		}
	}
	expect("nothing to cancel", "cancel", 409, "no seek of the endpoint was ordered")
	expect("behind, but not for a seek", "earliest", 202, "")
	expect("ordered a moment ago", "latest", 409, "a seek of the endpoint is under way, to earliest, ordered at 2")
	r.settle()
	r.seeking = true
	expect("catching up", "latest", 409, "cancel it, or wait until the endpoint has caught up")
	_, err := r.store.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		i := indexOf(set, hubID)
		set[i] = set[i].Seek(endpoints.Earliest, time.Unix(0, 0)) // as from startAt in the endpoints file
		return set, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	expect("started by the file", "latest", 409, "a seek of the endpoint is under way, to earliest: cancel it")
	expect("cancel", "cancel", 202, "")
	expect("cancelled already", "cancel", 409, "no seek of the endpoint was ordered")
	expect("after a cancel", "earliest", 202, "")
	r.settle()
	r.seeking = false
	expect("caught up", "earliest", 202, "")
}

// Another seek may be stored between the look at the endpoint and the change.
func TestSeeksAtTheSameTime(t *testing.T) {
	r := newEnv(t)
	o := &operations{r.options}
	ctx := context.WithValue(t.Context(), auditKey{}, r.options.Log)
	if _, err := o.orderSeek(ctx, hubID, endpoints.Earliest); err != nil {
		t.Fatal(err)
	}
	if _, err := o.orderSeek(ctx, hubID, endpoints.Latest); err == nil || !strings.Contains(err.Error(), "is under way") {
		t.Errorf("%v", err)
	}
	if e := r.stored(hubID); e.SeekTo != endpoints.Earliest {
		t.Errorf("%+v", endpoints.Document(e))
	}
}

func TestSeekNotices(t *testing.T) {
	reaches := time.Date(2026, 1, 24, 8, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		to      string
		preview Preview
		says    string
	}{
		"within":                      {"2026-01-24T08:00:00Z", Preview{Offsets: 1, Reaches: reaches}, ""},
		"before what is there":        {"2026-01-24T07:59:59Z", Preview{Offsets: 1, Reaches: reaches}, "came before 2026-01-24T08:00:00Z is no longer there"},
		"nothing there":               {"2026-01-24T07:59:59Z", Preview{}, "Kafka has nothing from there on"},
		"latest, and it isn't behind": {"latest", Preview{Offsets: 9}, "nothing is skipped"},
	} {
		r := newEnv(t)
		r.preview = tt.preview
		s := decode[Seek](t, r.seek(`{"to":"`+tt.to+`"}`, "?dryRun=1"))
		if tt.says == "" && s.Notice != "" || !strings.Contains(s.Notice, tt.says) {
			t.Errorf("%s: %q", name, s.Notice)
		}
		if tt.preview.Reaches.IsZero() && s.OldestAt != nil {
			t.Errorf("%s: a time that isn't known is %v", name, s.OldestAt)
		}
	}
}

func TestSeekRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		body, query string
		code        int
		says        string
	}{
		"no body":              {" ", "", 400, `the body must be {"to": …}`},
		"no JSON":              {`{"to":`, "", 400, `the body must be {"to": …}`},
		"a list":               {`["earliest"]`, "", 400, `the body must be {"to": …}`},
		"two values":           {`{"to":"earliest"}{}`, "", 400, `the body must be {"to": …}`},
		"a bracket too many":   {`{"to":"earliest"}}`, "", 400, `the body must be {"to": …}`},
		"another field":        {`{"to":"earliest","dryRun":true}`, "", 400, `the body must be {"to": …}`},
		"no to":                {`{}`, "", 400, "to must be earliest, latest, cancel, a time with its zone"},
		"null":                 {`{"to":null}`, "", 400, "to must be earliest, latest, cancel, a time with its zone"},
		"a number":             {`{"to":1769846400}`, "", 400, `the body must be {"to": …}`},
		"no time":              {`{"to":"yesterday"}`, "", 400, "or how long ago, such as 90m"},
		"no zone":              {`{"to":"2026-01-31T08:00:00"}`, "", 400, "a time with its zone"},
		"the future":           {`{"to":"9998-01-31T08:00:00Z"}`, "", 400, "is a time in the future"},
		"before the epoch":     {`{"to":"1969-12-31T23:59:59Z"}`, "", 400, "is before 1970"},
		"a misspelled query":   {`{"to":"earliest"}`, "?dry-run=true", 400, "dry-run unknown parameter; known is dryRun"},
		"dryRun without sense": {`{"to":"earliest"}`, "?dryRun=maybe", 400, "dryRun must be true or false"},
		"a form":               {`to=earliest`, "", 400, ""},
	} {
		r := newEnv(t)
		w := r.seek(tt.body, tt.query)
		if w.Code != tt.code || !strings.Contains(errorOf(t, w).Message, tt.says) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if e := r.stored(hubID); e.SeekTo != "" {
			t.Errorf("%s: stored %+v", name, endpoints.Document(e))
		}
	}
	r := newEnv(t, func(o *Options) { o.Config.RateLimit = math.MaxInt32 })
	for name, body := range garbage(maxBody / 16) {
		if w := r.seek(body, ""); w.Code != 400 || w.Body.Len() > 1000 {
			t.Errorf("%s: %d, %d bytes: %.300s", name, w.Code, w.Body.Len(), w.Body)
		}
	}
	for _, header := range []string{"application/x-www-form-urlencoded", "text/plain"} {
		w := r.do(call{method: "POST", path: Base + "/endpoints/" + hubID + "/seek", body: `{"to":"earliest"}`, header: map[string]string{"Content-Type": header}})
		if w.Code != 415 {
			t.Errorf("%s: %d", header, w.Code)
		}
	}
	if w := r.seek(strings.Repeat(" ", maxBody)+`{"to":"earliest"}`, ""); w.Code != 413 {
		t.Errorf("a large body: %d", w.Code)
	}

	// Nothing is ordered that nobody can say the meaning of.
	r.noPreview = errors.New("brokers don't answer\x1b")
	if w := r.seek(`{"to":"earliest"}`, ""); w.Code != 503 || !strings.Contains(w.Body.String(), "nothing has changed: brokers don't answer") || !strings.Contains(w.Body.String(), `answer\\u001b"`) || r.stored(hubID).SeekTo != "" {
		t.Errorf("Kafka doesn't answer: %d %s", w.Code, w.Body)
	}
	r = newEnv(t, func(o *Options) { o.Positions = nil })
	if w := r.seek(`{"to":"earliest"}`, ""); w.Code != 503 {
		t.Errorf("without positions: %d %s", w.Code, w.Body)
	}
	for name, change := range map[string]error{"read only": endpoints.ErrReadOnly, "unknown": endpoints.ErrUnknown} {
		r := newEnv(t, func(o *Options) { o.Store = failing{o.Store, change} })
		if w := r.seek(`{"to":"earliest"}`, ""); w.Code != 403 && w.Code != 503 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
