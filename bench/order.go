package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// order counts events that arrive, for the first time, after a later one of their Kafka
// partition. An event is known by its message id: topic/partition/offset.
type order struct {
	of map[string]bool // the entities that are looked at

	mu         sync.Mutex
	partitions map[string]*arrivals // by topic/partition
}

type arrivals struct {
	next      int64          // behind the latest that has arrived
	missing   map[int64]bool // before that one
	reordered int64
}

// arrived is called for each message, in the order of its entity.
func (o *order) arrived(entity string, _ int, id []byte) {
	slash := bytes.LastIndexByte(id, '/')
	if !o.of[entity] || slash < 0 {
		return
	}
	offset, err := strconv.ParseInt(string(id[slash+1:]), 10, 64)
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.partitions[string(id[:slash])]
	if a == nil {
		a = &arrivals{missing: make(map[int64]bool)}
		o.partitions[string(id[:slash])] = a
	}
	switch {
	case offset >= a.next:
		for ; a.next < offset; a.next++ {
			a.missing[a.next] = true
		}
		a.next++
	case a.missing[offset]:
		delete(a.missing, offset)
		a.reordered++
	}
}

// reordered returns how many events of a topic were out of order.
func (o *order) reordered(topic string) (n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for place, a := range o.partitions {
		if strings.HasPrefix(place, topic+"/") {
			n += a.reordered
		}
	}
	return n
}

// serve answers requests for the count of a topic until it is closed.
func (o *order) serve(ctx context.Context) (url string, end func() error, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("bench: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewEncoder(w).Encode(o.reordered(r.FormValue("topic"))) // the harness reports what it can't read
		}),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends with an error, by its Close
	return "http://" + listener.Addr().String(), func() error {
		err := server.Close()
		serving.Wait()
		return err
	}, nil
}

// reordered asks the services how many events of a topic were out of order.
func (e *env) reordered(ctx context.Context, topic string) (n int64, err error) {
	err = e.call(ctx, http.MethodGet, e.reply.Order+"/?topic="+topic, nil, func(body io.Reader) error { return json.NewDecoder(body).Decode(&n) })
	return n, err
}
