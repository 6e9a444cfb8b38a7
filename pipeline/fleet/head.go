package fleet

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"twinegress/internal/untrusted"
	"twinegress/pipeline"
)

// head is what a copy says of itself, at each heartbeat.
type head struct {
	V           int                   `json:"v"`
	Instance    string                `json:"instance"`
	Version     string                `json:"version"`
	StartedAt   time.Time             `json:"startedAt"`
	At          time.Time             `json:"at"`
	Ready       bool                  `json:"ready"`
	NotReady    []string              `json:"notReady"`
	Ingest      pipeline.IngestStatus `json:"ingest"`
	Endpoints   int                   `json:"endpoints"`
	Set         uint64                `json:"set"` // a hash of the endpoints that it has
	FileRefused bool                  `json:"fileRefused,omitempty"`
}

// command is what a copy asks the others to do.
type command struct {
	V        int       `json:"v"`
	ID       string    `json:"id"` // so that it is done once
	At       time.Time `json:"at"`
	Retry    string    `json:"retry"` // the endpoint's id
	Instance string    `json:"instance"`

	copy string // that asks
}

const (
	// maxHead bounds a head's bytes, and a command's.
	maxHead = 32 << 10
	// maxID bounds a copy's id: an instance's name and nine characters.
	maxID = 128
	// maxWords bounds lists of words in a head, and maxParts its lists of partitions.
	maxWords = 20
	maxParts = 1000
)

// The keys of the records of a copy: its head, its block 7f, its last command.
const (
	keyHead    = "copy/"
	keyBlock   = "endpoints/" // and /7f behind the id
	keyCommand = "command/"
)

// groupHeader is the header with the consumer group of the copy that wrote a record.
// It isn't in the key: copies' ids are their own anyway, and a group's name may have
// any characters.
const groupHeader = "group"

var legalID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,119}-[0-9a-f]{8}$`)

func headKey(id string) string         { return keyHead + id }
func blockKey(id string, n int) string { return fmt.Sprintf("%s%s/%02x", keyBlock, id, n) }
func commandKey(id string) string      { return keyCommand + id }

// parseKey returns what a record's key is of. kind is one of the constants above, or
// "" for what is no record of ours.
func parseKey(key string) (kind, id string, block int) {
	switch {
	case len(key) > len(keyBlock)+maxID+len("/7f"):
		return "", "", 0
	case strings.HasPrefix(key, keyHead):
		kind, id = keyHead, key[len(keyHead):]
	case strings.HasPrefix(key, keyCommand):
		kind, id = keyCommand, key[len(keyCommand):]
	case strings.HasPrefix(key, keyBlock):
		kind = keyBlock
		var number string
		id, number, _ = strings.Cut(key[len(keyBlock):], "/")
		if n, err := fmt.Sscanf(number, "%02x", &block); n != 1 || err != nil || block >= blocks || key != blockKey(id, block) {
			return "", "", 0
		}
	}
	if kind == "" || !legalID.MatchString(id) {
		return "", "", 0
	}
	return kind, id, block
}

// legalName returns an instance's name as a part of an id.
func legalName(instance string) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && legalID.MatchString(string(r)+"-00000000") {
			return r
		}
		return '_'
	}, instance)
	if name == "" {
		return "copy"
	}
	return name[:min(len(name), maxID-9)]
}

// encode returns the head's bytes; lists that are too long are cut.
func (h *head) encode() ([]byte, error) {
	h.V = version
	h.NotReady = h.NotReady[:min(len(h.NotReady), maxWords)]
	h.Ingest.Positions = h.Ingest.Positions[:min(len(h.Ingest.Positions), maxWords)]
	h.Ingest.Groups = h.Ingest.Groups[:min(len(h.Ingest.Groups), maxWords)]
	h.Ingest.Partitions = h.Ingest.Partitions[:min(len(h.Ingest.Partitions), maxParts)]
	h.Ingest.Stalled = h.Ingest.Stalled[:min(len(h.Ingest.Stalled), maxParts)]
	return json.Marshal(h)
}

// readHead reads a head, in which nothing is trusted.
func readHead(b []byte) (head, error) {
	var h head
	if err := readJSON(b, &h, &h.V); err != nil {
		return head{}, err
	}
	in := &h.Ingest
	if h.Endpoints < 0 || h.Endpoints > blocks*maxEntries || in.Records < 0 || in.Records > maxCount || in.Events > maxCount ||
		in.Unrouted > maxCount || in.Skipped < 0 || in.Skipped > maxCount || in.Lag != nil && (*in.Lag < 0 || *in.Lag > maxCount) ||
		in.Letters.Waiting < 0 || in.Letters.Waiting > maxCount || in.Letters.Cut > maxCount ||
		len(in.Positions) > maxWords || len(in.Groups) > maxWords || in.Retention != nil && !(*in.Retention >= 0 && *in.Retention <= maxCount) ||
		len(in.Partitions) > maxParts || len(in.Stalled) > maxParts || len(h.NotReady) > maxWords || len(in.Sample) > maxWords {
		return head{}, errMalformed
	}
	for _, counts := range []map[string]uint64{in.Rejected, in.Letters.GivenUp} {
		for word, n := range counts {
			if len(counts) > maxReasons || !legalWord.MatchString(word) || n > maxCount {
				return head{}, errMalformed
			}
		}
	}
	h.Instance, h.Version = untrusted.Short(h.Instance, maxID), untrusted.Short(h.Version, maxID)
	in.Letters.LastError = untrusted.Text(in.Letters.LastError)
	for _, sentences := range [][]string{h.NotReady, in.Positions, in.Groups} {
		for i, sentence := range sentences {
			sentences[i] = untrusted.Short(sentence, maxErrorLength)
		}
	}
	for i := range in.Sample {
		for _, text := range []*string{&in.Sample[i].EventType, &in.Sample[i].Topic, &in.Sample[i].Why} {
			*text = untrusted.Short(*text, maxErrorLength)
		}
	}
	return h, nil
}

// legalWord is a reason, as status and metrics name them.
var legalWord = regexp.MustCompile(`^[a-z_]{1,32}$`)

func readCommand(b []byte) (command, error) {
	var c command
	if err := readJSON(b, &c, &c.V); err != nil {
		return command{}, err
	}
	if len(c.ID) > maxID || len(c.Retry) > maxID {
		return command{}, errMalformed
	}
	c.Instance = untrusted.Short(c.Instance, maxID)
	return c, nil
}

func readJSON(b []byte, into any, v *int) error {
	if len(b) > maxHead {
		return fmt.Errorf("a record of %d bytes", len(b))
	}
	if err := json.Unmarshal(b, into); err != nil {
		return errMalformed
	}
	if *v != version {
		return fmt.Errorf("a record of version %d", *v)
	}
	return nil
}
