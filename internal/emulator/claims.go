package emulator

import (
	"crypto/subtle"
	"net/http"
	"strconv"
	"strings"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"twinegress/internal/emulator/amqp"
)

func sessionOf(c *amqp.Conn) session {
	s, ok := c.Data.(session)
	if !ok {
		s = session{}
		c.Data = s
	}
	return s
}

// claim returns a token that is valid for an address.
func (s session) claim(address string) (claim, bool) {
	now := time.Now()
	if address == "$management" { // of the namespace: its requests name the hub, and carry a token
		for _, c := range s {
			if now.Before(c.expires) {
				return c, true
			}
		}
		return claim{}, false
	}
	// From the address itself up to the namespace, so that the closest token decides.
	for path := strings.ToLower(address); ; {
		if c, ok := s[path]; ok && now.Before(c.expires) {
			return c, true
		}
		if path == "" {
			return claim{}, false
		}
		path = path[:max(strings.LastIndexByte(path, '/'), 0)]
	}
}

// Request implements amqp.Backend: put-token at $cbs, READ at $management.
func (n *namespace) Request(l *amqp.Link, m *goamqp.Message) *goamqp.Message {
	if l.Address() == "$cbs" {
		return n.putToken(l.Conn(), m)
	}
	return n.manage(l.Conn(), m)
}

func reply(status int, description string, value any) *goamqp.Message {
	return &goamqp.Message{
		ApplicationProperties: map[string]any{"status-code": int32(status), "status-description": description},
		Value:                 value,
	}
}

func text(m *goamqp.Message, property string) string {
	s, _ := m.ApplicationProperties[property].(string)
	return s
}

func (n *namespace) putToken(conn *amqp.Conn, m *goamqp.Message) *goamqp.Message {
	if text(m, "operation") != "put-token" {
		return reply(http.StatusBadRequest, "BadRequest: the operation is not put-token.", nil)
	}
	audience := text(m, "name")
	token, _ := m.Value.(string)
	path := audiencePath(audience)
	name, rest := split(path)
	e := n.entity(name)
	f := n.faultOf(e, partitionOf(rest)).fault()
	if f != nil && f.Hang {
		conn.Freeze()
		return nil
	}
	c, err := n.authorize(e, text(m, "type"), token, audience)
	if err == nil && f.rejects(c.linkKey) {
		err = errTokenSignature
	}
	if err != nil {
		return reply(http.StatusUnauthorized, err.Error(), nil)
	}
	sessionOf(conn)[strings.ToLower(path)] = c
	return reply(http.StatusAccepted, "Accepted", nil)
}

// authorize checks a token against the entity's keys, or the namespace's.
func (n *namespace) authorize(e *entity, kind, token, audience string) (claim, error) {
	if kind == "jwt" {
		if n.cfg.BearerToken == "" || subtle.ConstantTimeCompare([]byte(token), []byte(n.cfg.BearerToken)) != 1 {
			return claim{}, errTokenIssuer
		}
		return claim{linkKey: linkKey{identity: true}, expires: time.Now().Add(time.Hour)}, nil
	}
	keys := n.cfg.Keys
	if e != nil {
		keys = e.keys
	}
	k, expires, err := verifySAS(token, audience, keys, time.Now())
	return claim{linkKey: linkKey{key: k}, expires: expires}, err
}

// manage handles the SDKs' requests for a hub's properties.
func (n *namespace) manage(conn *amqp.Conn, m *goamqp.Message) *goamqp.Message {
	if text(m, "operation") != "READ" {
		return reply(http.StatusNotImplemented, "The emulator answers READ only.", nil)
	}
	name := text(m, "name")
	e := n.entity(name)
	if e == nil && n.cfg.AutoCreate && name != "" {
		e = n.create(name, conn)
	}
	if e == nil || e.kind != KindEventHub {
		return reply(http.StatusNotFound, "The messaging entity '"+name+"' could not be found.", nil)
	}
	s := e.stats()
	switch text(m, "type") {
	case "com.microsoft:eventhub":
		ids := make([]string, len(s.Partitions))
		for i, p := range s.Partitions {
			ids[i] = p.ID
		}
		return reply(http.StatusOK, "OK", map[string]any{
			"name": e.name, "type": "com.microsoft:eventhub", "created_at": n.started,
			"partition_count": int32(len(ids)), "partition_ids": ids, "georeplication_factor": int32(1),
		})
	case "com.microsoft:partition":
		i, err := strconv.Atoi(text(m, "partition"))
		if err != nil || i < 0 || i >= len(s.Partitions) {
			return reply(http.StatusBadRequest, "The specified partition is invalid.", nil)
		}
		p := s.Partitions[i]
		return reply(http.StatusOK, "OK", map[string]any{
			"name": e.name, "type": "com.microsoft:partition", "partition": p.ID,
			"begin_sequence_number": int64(0), "last_enqueued_sequence_number": p.Count - 1,
			"last_enqueued_offset": strconv.FormatInt(max(p.Bytes-1, -1), 10), "last_enqueued_time_utc": time.Now(),
			"is_partition_empty": p.Count == 0,
		})
	}
	return reply(http.StatusBadRequest, "BadRequest: unknown type.", nil)
}
