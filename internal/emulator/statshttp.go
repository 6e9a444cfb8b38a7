package emulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
)

// statsServer serves the counts and sets faults:
//
//	GET /stats    GET /messages?entity=NAME&limit=N    POST /reset
//	PUT /faults?entity=NAME (a Fault)    DELETE /faults?entity=NAME
type statsServer struct {
	e    *Emulator
	addr string
	srv  *http.Server
	wg   sync.WaitGroup
}

func startStats(ctx context.Context, e *Emulator, addr string) (*statsServer, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("emulator: stats server: %w", err)
	}
	s := &statsServer{e: e, addr: ln.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", s.stats)
	mux.HandleFunc("GET /messages", s.messages)
	mux.HandleFunc("POST /reset", s.reset)
	mux.HandleFunc("PUT /faults", s.setFault)
	mux.HandleFunc("DELETE /faults", s.clearFault)
	s.srv = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.wg.Go(func() {
		if err := s.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			e.cfg.Logger.Error("emulator: stats server stopped", zap.Error(err))
		}
	})
	return s, nil
}

// stop waits for running requests, which are short.
func (s *statsServer) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.srv.Shutdown(ctx)
	if err != nil {
		_ = s.srv.Close()
	}
	s.wg.Wait()
	return err
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client has gone
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

func (s *statsServer) stats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.e.Stats())
}

// shownMessage is a Message with a readable body: JSON as it is, text as a string,
// other bytes in base64.
type shownMessage struct {
	Message
	Body any `json:"body"`
}

func (s *statsServer) messages(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("entity")
	t := s.e.find(name)
	if t == nil {
		writeError(w, http.StatusNotFound, fmt.Errorf("there is no entity %q", name))
		return
	}
	limit := 100
	if q := r.URL.Query().Get("limit"); q != "" {
		n, err := strconv.Atoi(q)
		if err != nil || n < 0 {
			writeError(w, http.StatusBadRequest, fmt.Errorf("limit %q is no number", q))
			return
		}
		limit = n
	}
	out := []shownMessage{}
	for _, m := range t.messages(limit) {
		sm := shownMessage{Message: m}
		switch {
		case json.Valid(m.Body):
			sm.Body = json.RawMessage(m.Body)
		case utf8.Valid(m.Body):
			sm.Body = string(m.Body)
		default:
			sm.Body = m.Body
		}
		out = append(out, sm)
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *statsServer) reset(w http.ResponseWriter, _ *http.Request) {
	s.e.Reset()
	w.WriteHeader(http.StatusNoContent)
}

func (s *statsServer) setFault(w http.ResponseWriter, r *http.Request) {
	var f Fault
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	d.DisallowUnknownFields() // a misspelled fault must not be ignored
	if err := d.Decode(&f); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	s.writeResult(w, s.e.SetFault(r.URL.Query().Get("entity"), f))
}

func (s *statsServer) clearFault(w http.ResponseWriter, r *http.Request) {
	s.writeResult(w, s.e.ClearFault(r.URL.Query().Get("entity")))
}

func (s *statsServer) writeResult(w http.ResponseWriter, err error) {
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
