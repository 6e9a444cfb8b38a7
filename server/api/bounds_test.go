package api

import (
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// maxReply bounds every reply but the lists.
const maxReply = 64 << 10

// garbage are bodies of a size, of which something is wrong as often as it can be.
func garbage(size int) map[string]string {
	fill := func(before, one, after string) string {
		return before + strings.Repeat(one, (size-len(before)-len(after))/len(one)) + after
	}
	var keys strings.Builder
	for i := 0; keys.Len() < size-len(newHub)-20; i++ {
		fmt.Fprintf(&keys, `"k%d":1,`, i)
	}
	rest := newHub[1:]
	return map[string]string{
		"unknown fields":         "{" + keys.String() + rest,
		"one unknown field":      fill("{", `"x":1,`, rest),
		"fields repeated":        fill("{", `"name":"",`, rest),
		"unknown event types":    fill(`{"eventTypes":[`, `"x",`, `"x"],`+rest),
		"event types repeated":   fill(`{"eventTypes":[`, `"UdfCustom",`, `"UdfCustom"],`+rest),
		"a long name":            fill(`{"name":"`, "\u202e", `",`+rest),
		"a long field":           fill(`{"`, "x", `":1,`+rest),
		"a long type":            fill(`{"type":"`, "x", `"}`),
		"a long path":            fill(`{"type":"EventHub","path":"`, " x", `"}`),
		"a long filter":          fill(`{"filter":"`, "(", `",`+rest),
		"connection strings":     strings.Replace(fill(`{"connectionString":"`, "a=;", `","secondaryConnectionString":"SEC`+strings.Repeat("x=;", 2700)+`",`+rest), `"connectionString":"Endpoint`, `"body":"Endpoint`, 1),
		"parts of one":           `{"connectionString":"` + strings.Repeat("a=;", 2700) + `","secondaryConnectionString":"` + strings.Repeat("é=;", 2000) + `","type":"EventHub"}`,
		"nesting":                strings.Repeat("[", size),
		"nesting in a field":     fill(`{"name":`, "[", ""),
		"a number":               fill(`{"type":`, "1", `}`),
		"no UTF-8":               fill(`{"name":"`, "\xff", `"}`),
		"no JSON":                fill("", "SECRET ", ""),
		"blank":                  fill("", " ", ""),
		"brackets, never closed": fill(`{"eventTypes":[`, `["x",`, ""),
	}
}

// Whatever a client sends, the reply is short: the first mistakes, and how many more
// there are.
func TestRepliesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 60<<10)
	words := strings.TrimSuffix(strings.Repeat("x,", 30<<10), ",")
	r := newEnv(t, func(o *Options) { o.Config.RateLimit = math.MaxInt32 })
	reply := func(name string, c call) *httptest.ResponseRecorder {
		t.Helper()
		w := r.do(c)
		size := w.Body.Len()
		for name, values := range w.Header() {
			size += len(name) + len(strings.Join(values, ""))
		}
		if size > maxReply {
			t.Errorf("%s %s, %s: %d, a reply of %d bytes: %.300s", c.method, c.path[:min(len(c.path), 80)], name, w.Code, size, w.Body)
		}
		if w.Code >= 500 {
			t.Errorf("%s %s, %s: %d", c.method, c.path[:min(len(c.path), 80)], name, w.Code)
		}
		return w
	}
	for i, op := range contract {
		if !op.body {
			continue
		}
		size := maxBody
		if i > 0 { // they read bodies as the first one does
			size /= 16
		}
		for name, body := range garbage(size) {
			if len(body) > maxBody {
				t.Fatalf("%s: %d bytes", name, len(body))
			}
			if w := reply(name, call{method: op.method, path: op.path, body: body}); w.Code != 400 {
				t.Errorf("%s %s, %s: %d %.200s", op.method, op.path, name, w.Code, w.Body)
			}
		}
	}
	var many strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&many, "&x%d=1", i)
	}
	for name, query := range map[string]string{
		"unknown parameters": many.String()[1:], "one, repeated": strings.Repeat("x&", 30<<10), "unknown types": "types=" + words,
		"types, repeated": strings.Repeat("types=x&", 8<<10), "known types": "$top=1&types=" + strings.TrimSuffix(strings.Repeat("EventHub,", 7<<10), ","),
		"times": "timeUpdated=" + long, "numbers": "$top=" + strings.Repeat("9", 60<<10), "broken": strings.Repeat("%zz&", 15<<10), "a long name": long + "=1",
		"largest numbers": fmt.Sprintf("$top=%d&$skip=%d", math.MaxInt, math.MaxInt),
	} {
		reply(name, call{method: "GET", path: Base + "/endpoints?" + query})
	}
	for _, op := range contract {
		o := op.call()
		for name, c := range map[string]call{
			"a long id":      {path: Base + "/endpoints/" + long},
			"a long path":    {path: "/" + long},
			"long tags":      {path: o.path, header: map[string]string{"If-Match": words, "If-None-Match": words}},
			"many tags":      {path: o.path, lines: strings.Split(words, ",")},
			"a long type":    {path: o.path, header: map[string]string{"Content-Type": long}},
			"a long request": {path: o.path, header: map[string]string{clientRequestIDHeader: long}},
			"another site":   {path: o.path, header: map[string]string{"Origin": "https://" + long, "Sec-Fetch-Site": long}},
			"a long token":   {path: o.path, token: long},
			"a long JWT":     {path: o.path, token: "a." + long + ".c"},
			"a long query":   {path: o.path + "?" + long},
		} {
			c.method, c.body = op.method, o.body
			reply(name, c)
		}
	}
}

// The mistakes of a query are counted as those of a body are.
func TestMistakesOfAQueryAreBounded(t *testing.T) {
	r := newEnv(t)
	for n, last := range map[int]string{19: "unknown parameter", 20: "unknown parameter", 21: "and 1 more", 500: "and 480 more"} {
		var query strings.Builder
		for i := range n {
			fmt.Fprintf(&query, "x%03d=1&", i)
		}
		w := r.do(call{method: "GET", path: Base + "/endpoints?" + query.String()})
		said := errorOf(t, w).Details
		if w.Code != 400 || len(said) != min(n, 21) || !strings.HasPrefix(said[len(said)-1].Message, last) || said[0].Field != "x000" {
			t.Errorf("%d: %d %s", n, w.Code, w.Body)
		}
	}
}

// gate is a body that ends when it is opened.
type gate struct {
	reading *atomic.Int32 // bodies that are read
	once    sync.Once
	open    chan struct{}
	rest    io.Reader
}

func (g *gate) Read(p []byte) (int, error) {
	g.once.Do(func() { g.reading.Add(1) })
	<-g.open
	return g.rest.Read(p)
}

// However many requests with large bodies there are, few are read at a time; the
// others wait a while. Requests without a body go on.
func TestBodiesAtATime(t *testing.T) {
	const most = maxBodies / maxBody
	for name, length := range map[string]int64{"length said": maxBody, "length not said": -1, "length too large": 5 * maxBody} {
		synctest.Test(t, func(t *testing.T) {
			r := newEnv(t)
			var reading atomic.Int32
			open := make(chan struct{})
			replies := make(chan *httptest.ResponseRecorder, 3*most)
			for range cap(replies) {
				request := httptest.NewRequest("POST", "/endpoints", &gate{reading: &reading, open: open, rest: strings.NewReader(newHub)})
				request.ContentLength = length // what it says counts, not what comes
				request.Header.Set("Authorization", "Bearer "+writer)
				go func() {
					w := httptest.NewRecorder()
					r.handler.ServeHTTP(w, request)
					r.check(w)
					replies <- w
				}()
			}
			synctest.Wait()
			if n := reading.Load(); n != most {
				t.Fatalf("%s: %d bodies are read at a time, want %d", name, n, most)
			}
			if w := r.do(call{method: "GET", path: Base + "/endpoints"}); w.Code != 200 {
				t.Errorf("%s: a request without a body: %d", name, w.Code)
			}
			time.Sleep(loadTimeout)
			synctest.Wait()
			for range cap(replies) - most {
				if w := <-replies; w.Code != 503 || !strings.Contains(w.Body.String(), "too many large requests") {
					t.Errorf("%s: %d %s, while others are read", name, w.Code, w.Body)
				}
			}
			if n := reading.Load(); n != most {
				t.Errorf("%s: %d bodies were read in all, want %d", name, n, most)
			}
			close(open)
			for range most {
				if w := <-replies; w.Code != 201 {
					t.Errorf("%s: %d %s", name, w.Code, w.Body)
				}
			}
			if w := r.do(call{method: "POST", path: "/endpoints", body: newHub}); w.Code != 201 {
				t.Errorf("%s: afterwards: %d", name, w.Code)
			}
		})
	}
}

// slowReader is a client that doesn't read its reply until it is told to.
type slowReader struct {
	*httptest.ResponseRecorder
	writing *atomic.Int32
	open    chan struct{}
}

func (s slowReader) Write(p []byte) (int, error) {
	s.writing.Add(1)
	<-s.open
	return s.ResponseRecorder.Write(p)
}

// However many clients want lists, few large ones are in memory; other operations go
// on.
func TestListsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := storetest.Hubs(0, storetest.Many)
		for i := range set {
			set[i].SecondaryConnectionString = ""
		}
		store, err := endpoints.NewMemoryStore(set, endpoints.Options{})
		storetest.Must(t, err)
		r := newEnv(t, func(o *Options) { o.Store = store })
		const most = maxListed / storetest.Many
		var writing atomic.Int32
		open := make(chan struct{})
		codes := make(chan int, 2*most)
		for i := range cap(codes) {
			path := Base + "/endpoints?$top=1"
			if i%2 == 1 {
				path = Base + "/status"
			}
			request := httptest.NewRequest("GET", path, nil)
			request.Header.Set("Authorization", "Bearer "+reader)
			go func() {
				w := slowReader{httptest.NewRecorder(), &writing, open}
				r.handler.ServeHTTP(w, request)
				codes <- w.Code
			}()
		}
		synctest.Wait()
		if n := writing.Load(); n != most {
			t.Fatalf("%d lists of %d at a time, want %d", n, storetest.Many, most)
		}
		id := store.Current()[0].ID
		if w := r.do(call{method: "GET", path: Base + "/endpoints/" + id}); w.Code != 200 {
			t.Errorf("one endpoint: %d", w.Code)
		}
		close(open)
		for range cap(codes) {
			if code := <-codes; code != 200 {
				t.Error(code)
			}
		}
	})
}

// A list has all endpoints, however many there are, and its pages lead to all.
func TestListOfMany(t *testing.T) {
	store, err := endpoints.NewMemoryStore(storetest.Hubs(0, storetest.Many), endpoints.Options{})
	storetest.Must(t, err)
	r := newEnv(t, func(o *Options) { o.Store = store })
	list := func(query string) (n int, next string) {
		w := r.do(call{method: "GET", path: Base + "/endpoints" + query})
		return len(decode[[]struct{ ID string }](t, w)), w.Header().Get("Link")
	}
	if n, next := list(""); n != storetest.Many || next != "" {
		t.Errorf("%d, and then %q", n, next)
	}
	if n, next := list("?$skip=9998&$top=" + strconv.Itoa(math.MaxInt)); n != 2 || next != "" {
		t.Errorf("with the largest $top: %d, and then %q", n, next)
	}
	if n, next := list("?$top=1&$skip=" + strconv.Itoa(math.MaxInt)); n != 0 || next != "" {
		t.Errorf("with the largest $skip: %d, and then %q", n, next)
	}
	if n, next := list("?$skip=" + strconv.Itoa(storetest.Many-1) + "&$top=1"); n != 1 || next != "" {
		t.Errorf("the last one: %d, and then %q", n, next)
	}
	const query = "?$top=3&$skip=9990&types=eventhub&types=EventHub,ServiceBus&eventTypes=sensorchange&timeUpdated=2020-01-01"
	want := "<" + Base + "/endpoints?%24skip=9993&%24top=3&eventTypes=SensorChange&timeUpdated=2020-01-01T00%3A00%3A00Z&types=EventHub&types=ServiceBus>; rel=\"next\""
	if n, next := list(query); n != 3 || next != want {
		t.Errorf("%d, and then %s", n, next)
	}
}
