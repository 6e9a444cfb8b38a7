package emulator

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// GridMaxBytes is Event Grid's limit for a request and for one event.
const GridMaxBytes = 1 << 20

const gridVersion = "2018-01-01"

// gridTopic is an Event Grid topic on its own listener: topics have a port each,
// since made-up host names don't resolve everywhere.
type gridTopic struct {
	*entity
	cfg *Config
	ca  *authority

	mu      sync.Mutex
	address string
	server  *http.Server // nil while down
	cancel  context.CancelFunc
	wg      sync.WaitGroup // the accepting goroutine and the connections
}

func startGrid(ctx context.Context, cfg *Config, t GridTopic, ca *authority) (*gridTopic, error) {
	g := &gridTopic{entity: newEntity(cfg, t.Name, KindEventGrid, 1, GridMaxBytes, t.Keys), cfg: cfg, ca: ca, address: cmp.Or(t.Listen, defaultListen)}
	return g, g.up(ctx)
}

func (g *gridTopic) addr() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.address
}

// up opens the listener, unless it is open.
func (g *gridTopic) up(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != nil {
		return nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", g.address)
	if err != nil {
		return fmt.Errorf("emulator: Event Grid topic %s: %w", g.name, err)
	}
	g.address = ln.Addr().String()
	// Handlers that keep a request waiting end when the topic stops, not when ctx ends.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	srv := &http.Server{
		Handler: g, TLSConfig: g.ca.config(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog:    zap.NewStdLog(g.cfg.Logger.Named("eventgrid")),
		BaseContext: func(net.Listener) context.Context { return base },
		// HTTP/1.1 only, so that cutting a request's connection cuts no other request.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		// http.Server.Close doesn't wait for connections; wg does. StateNew comes on the accepting goroutine.
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew:
				g.wg.Add(1)
			case http.StateClosed, http.StateHijacked:
				g.wg.Done()
			}
		},
	}
	g.server, g.cancel = srv, cancel
	hl := &hangListener{Listener: ln, fault: &g.fault}
	g.wg.Go(func() {
		defer hl.release()
		if err := srv.ServeTLS(hl, "", ""); !errors.Is(err, http.ErrServerClosed) {
			g.cfg.Logger.Error("emulator: Event Grid topic stopped", zap.String("topic", g.name), zap.Error(err))
		}
	})
	return nil
}

// stop closes the listener and every connection, and waits for their goroutines.
func (g *gridTopic) stop() {
	g.mu.Lock()
	srv, cancel := g.server, g.cancel
	g.server = nil
	g.mu.Unlock()
	if srv != nil {
		cancel()
		_ = srv.Close()
	}
	g.wg.Wait()
}

func (g *gridTopic) setFault(f *Fault) error {
	g.fault.Store(activate(f))
	if f != nil && f.Down {
		g.stop()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return g.up(ctx)
}

// ServeHTTP handles one request.
func (g *gridTopic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	active := g.fault.Load()
	f := active.fault()
	if f != nil && (f.Hang || f.Silent) {
		// A server detects the client's end only after the body is read.
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 2*GridMaxBytes))
		neverReply(r)
	}
	if f != nil && f.Refuse != "" {
		g.writeError(w, http.StatusNotFound, "ResourceNotFound", "The topic '"+g.name+"' could not be found.")
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/api/events" {
		g.writeError(w, http.StatusNotFound, "ResourceNotFound", "There is only POST /api/events.")
		return
	}
	if v := r.URL.Query().Get("api-version"); v != gridVersion {
		g.writeError(w, http.StatusBadRequest, "BadRequest", "The api-version '"+v+"' is not supported.")
		return
	}
	if err := g.authorize(r, f); err != nil {
		g.writeError(w, http.StatusUnauthorized, "Unauthorized", err.Error())
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, GridMaxBytes+1))
	switch {
	case err != nil:
		g.writeError(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	case len(body) > GridMaxBytes:
		g.writeError(w, http.StatusRequestEntityTooLarge, "PayloadTooLarge", "The maximum size (1048576) has been exceeded.")
		return
	}
	g.publish(w, r, active, body)
}

// authorize checks the request's credential.
func (g *gridTopic) authorize(r *http.Request, f *Fault) error {
	var k Key
	var identity bool
	var err error
	switch key, token := r.Header.Get("aeg-sas-key"), r.Header.Get("aeg-sas-token"); {
	case key != "":
		var ok bool
		if k, ok = matchKey(key, g.keys); !ok {
			return errors.New("The request authorization key is not authorized for the topic.") //nolint:staticcheck // the service's words
		}
	case token != "":
		if k, err = verifyGridToken(token, g.keys, time.Now()); err != nil {
			return err
		}
	case g.cfg.BearerToken != "" && r.Header.Get("Authorization") == "Bearer "+g.cfg.BearerToken:
		identity = true
	default:
		return errTokenMalformed
	}
	if f.rejects(linkKey{k, identity}) {
		return errors.New("The request authorization key is not authorized for the topic.") //nolint:staticcheck // the service's words
	}
	return nil
}

func (g *gridTopic) publish(w http.ResponseWriter, r *http.Request, a *activeFault, body []byte) {
	f := a.fault()
	faulty := f != nil && f.delivery() && a.applies()
	if faulty {
		switch {
		case f.Cut == CutMid, f.Cut == CutBefore, f.Cut == CutClose, f.Detach != "":
			g.refuse()
			abort()
		case f.Throttle > 0:
			w.Header().Set("Retry-After", strconv.Itoa(f.Throttle))
			g.writeError(w, http.StatusTooManyRequests, "TooManyRequests", "The topic is being throttled.")
			return
		case f.Status != 0:
			if f.RetryAfter > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
			}
			g.writeError(w, f.Status, "EmulatedFault", cmp.Or(f.Description, http.StatusText(f.Status)))
			return
		}
	}
	if err := g.storeEvents(f, body); err != nil {
		g.writeError(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	if faulty && f.Cut != "" {
		abort()
	}
	if faulty && f.NeverSettle {
		neverReply(r)
	}
	if faulty && f.Delay > 0 {
		t := time.NewTimer(time.Duration(f.Delay))
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

// neverReply leaves a request without a response. It doesn't return: a handler that
// returns sends 200, which can still reach a client that half closed its connection.
func neverReply(r *http.Request) {
	<-r.Context().Done()
	abort()
}

func (g *gridTopic) writeError(w http.ResponseWriter, status int, code, message string) {
	g.refuse()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"error":{"code":%q,"message":%q}}`, code, message)
}

// hangListener accepts connections and, during the fault Hang, keeps them without
// serving them.
type hangListener struct {
	net.Listener
	fault *atomic.Pointer[activeFault]

	mu   sync.Mutex
	kept []net.Conn
	over bool
}

// Accept returns the next connection to serve.
func (h *hangListener) Accept() (net.Conn, error) {
	for {
		c, err := h.Listener.Accept()
		if f := h.fault.Load(); err != nil || f == nil || !f.Hang {
			return c, err
		}
		h.mu.Lock()
		if h.over {
			_ = c.Close()
		} else {
			h.kept = append(h.kept, c)
		}
		h.mu.Unlock()
	}
}

// release closes the connections that were kept.
func (h *hangListener) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	for _, c := range h.kept {
		_ = c.Close()
	}
	h.kept = nil
}

// abort drops the connection without a response, in the only way that net/http has.
func abort() { panic(http.ErrAbortHandler) } //nolint:forbidigo // see above
