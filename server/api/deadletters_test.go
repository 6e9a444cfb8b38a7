package api

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"twinegress/pipeline/letters"
)

// What is selected is what was asked for, and what is wrong with it is said.
func TestDeadLettersQuery(t *testing.T) {
	const path = Base + "/deadletters"
	bounds := fmt.Sprint(letterBounds)
	for query, want := range map[string]string{
		"":                                  "{ [] 0001-01-01 00:00:00 +0000 UTC 0001-01-01 00:00:00 +0000 UTC} 20 " + bounds,
		"endpoint=" + hubID:                 "{" + hubID + " []",
		"endpoint=" + strings.ToUpper(noID): "{" + noID + " []", // its letters outlive an endpoint
		"Reason=backoff,Too_Large&reason=rejected":           "{ [backoff too_large rejected] ",
		"since=2026-05-01&until=2026-05-01T08:00:00%2B02:00": "{ [] 2026-05-01 00:00:00 +0000 UTC 2026-05-01 08:00:00 +0200",
		"$top=1":                            "UTC} 1 ",
		"$top=1000":                         "UTC} 1000 ",
		"$top=0":                            "400 $top must be a whole number from 1 to 1000",
		"$top=1001":                         "400 $top must be",
		"reason=bad":                        "400 reason unknown value",
		"since=yesterday":                   "400 since must be a time such as",
		"since=1969-12-31":                  "400 since must be a time such as",
		"since=2026-05-01&until=2026-05-01": "400 until must be after since",
		"endpoint=nope":                     "400 endpoint no endpoint has that id or name",
		"endpint=x":                         "400 endpint unknown parameter",
		"a;b":                               "400 has a ;",
	} {
		r := newEnv(t)
		w := r.do(call{method: "GET", path: path + "?" + query, token: reader})
		got := strings.Join(r.asked, "")
		if w.Code != 200 {
			got = fmt.Sprintf("%d %s", w.Code, strings.TrimPrefix(errorOf(t, w).Message, "the query is not valid: "))
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// A letter with the id alone gets the name of the endpoint.
func TestDeadLettersNames(t *testing.T) {
	r := newEnv(t)
	list := decode[letters.List](t, r.do(call{method: "GET", path: Base + "/deadletters", token: reader}))
	count := decode[letters.Count](t, r.do(call{method: "GET", path: Base + "/deadletters/count", token: reader}))
	if want := "EventHub ns.servicebus.windows.net/hub"; list.Letters[0].Target != want || count.Groups[0].Target != want {
		t.Errorf("%+v, %+v", list, count)
	}
}

func TestShowDeadLetter(t *testing.T) {
	r := newEnv(t)
	one := decode[letters.Whole](t, r.do(call{method: "GET", path: Base + "/deadletters/0/7", token: watcher}))
	if len(*one.Value) != maxValue || !one.ValueCut {
		t.Errorf("%d bytes", len(*one.Value))
	}
	for path, want := range map[string]int{"/0/8": 404, "/1/7": 404, "/x/7": 400, "/0/-1": 400, "/4294967296/7": 400} {
		if w := r.do(call{method: "GET", path: Base + "/deadletters" + path, token: watcher}); w.Code != want {
			t.Errorf("%s: status %d, want %d: %s", path, w.Code, want, w.Body)
		}
	}
}

// A topic that can't be read is a 503 that says why, without secrets.
func TestUnreadableDeadLetters(t *testing.T) {
	r := newEnv(t)
	r.unreadable = errors.New("brokers: SharedAccessKey=c2VjcmV0c2VjcmV0 \x1b[31m")
	for _, path := range []string{"", "/count", "/0/7"} {
		w := r.do(call{method: "GET", path: Base + "/deadletters" + path, token: watcher})
		if text := w.Body.String(); w.Code != 503 || strings.Contains(text, "c2VjcmV0") || !strings.Contains(text, "can't be read right now: brokers: ") {
			t.Errorf("%s: %d %s", path, w.Code, text)
		}
	}
}

// Two requests read the topic at a time. A third waits for a while, then it is told to
// come again.
func TestDeadLettersAreReadByFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newEnv(t)
		r.reading = make(chan context.Context)
		replies := make(chan *httptest.ResponseRecorder, 3)
		for range 3 {
			go func() { replies <- r.do(call{method: "GET", path: Base + "/deadletters/0/7", token: watcher}) }()
		}
		if w := <-replies; w.Code != 503 { // after 5 s, while two are in Show
			t.Errorf("the third: %d %s", w.Code, w.Body)
		}
		for range maxReading {
			<-r.reading
			if w := <-replies; w.Code != 200 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
	})
}
