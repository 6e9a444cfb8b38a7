package azamqp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/Azure/go-amqp"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
)

// Doing is what a sink was about when it failed.
type Doing bool

// What a sink does.
const (
	Opening Doing = false // up to a link to send on
	Sending Doing = true
)

// Explained puts a sentence before the service's words: what is wrong with which
// entity, and what to do about it. An error that nobody knows stays as it is.
func (c *Connections) Explained(e *sinks.Error, doing Doing) *sinks.Error {
	said := wordsOf(e.Err)
	cause, what := c.explain(e, said, doing)
	switch {
	case what != "":
		e.Cause, e.Err = cause, explained{what + " (" + said.text + ")", e.Err}
	case cause != "": // what there is to say is said
		e.Cause, e.Err = cause, explained{said.text, e.Err}
	case said.condition != "":
		e.Cause, e.Err = said.condition, explained{said.text, e.Err}
	}
	return e
}

// explained is an error in other words.
type explained struct {
	text string
	err  error
}

func (e explained) Error() string { return e.text }

func (e explained) Unwrap() error { return e.err }

// words is what an error of the SDKs says without their own dressing of it.
type words struct {
	condition string // of AMQP, or the status of a management request; "" is neither
	text      string
}

var (
	rpcText = regexp.MustCompile(`(?s)rpc: failed, status code (\d+) and description: (.*)`)
	// dumpText matches an AMQP error as go-amqp prints it, whole.
	dumpText = regexp.MustCompile(`(?s)\*Error\{Condition: ([^,]*), Description: (.*), Info: map\[[^\]]*\]\}`)
	// sdkCode is what the SDKs write before the errors that they wrap.
	sdkCode = regexp.MustCompile(`^\((connlost|timeout|unauthorized|notfound|closed)\): `)
)

func wordsOf(err error) words {
	text := sdkCode.ReplaceAllString(err.Error(), "")
	if e, ok := condition(err); ok {
		said := strings.TrimSuffix(string(e.Condition)+": "+e.Description, ": ")
		if dump := dumpText.FindString(text); dump != "" { // and the library may have more to say
			said = strings.Replace(text, dump, said, 1)
		}
		return words{string(e.Condition), said}
	}
	if m := rpcText.FindStringSubmatch(text); m != nil {
		status, _ := strconv.Atoi(m[1])
		return words{m[1], strings.TrimRight(fmt.Sprintf("%s %s: %s", m[1], http.StatusText(status), m[2]), ": ")}
	}
	return words{"", text}
}

// explain returns the cause of an error in a word, and the sentence.
func (c *Connections) explain(e *sinks.Error, said words, doing Doing) (cause, what string) {
	if f := c.failure(e.Err, said.text); f != nil {
		return f.Cause, ""
	}
	if e.Reason == event.Unauthorized {
		return c.explainRefusal(said)
	}
	switch said.condition {
	case string(amqp.ErrCondNotFound), "404":
		return "not_found", fmt.Sprintf("%s does not exist in the namespace %s: create it, or correct the endpoint's path", c.entity, c.Host)
	case string(amqp.ErrCondResourceDeleted):
		return "not_found", fmt.Sprintf("%s was deleted from the namespace %s: create it again, or delete the endpoint", c.entity, c.Host)
	case "com.microsoft:entity-disabled":
		return "disabled", fmt.Sprintf("%s is disabled: enable it in the namespace %s", c.entity, c.Host)
	case "com.microsoft:server-busy":
		return "server_busy", fmt.Sprintf("the service throttles, %s gets more than it may take: send less, or add capacity to the namespace %s", c.entity, c.Host)
	case string(amqp.ErrCondResourceLimitExceeded):
		return "quota", fmt.Sprintf("a quota of %s is used up: take messages from it, or raise the quota, in the namespace %s", c.entity, c.Host)
	case string(amqp.ErrCondInternalError), "com.microsoft:timeout", "500", "503":
		return "service_error", fmt.Sprintf("the service failed by itself, in the namespace %s: if that goes on, look at Azure's status", c.Host)
	case string(amqp.ErrCondDetachForced), string(amqp.ErrCondConnectionForced):
		return outbound.CauseLost, fmt.Sprintf("the service ended the connection for %s, as it does in maintenance or after long idleness", c.entity)
	}
	switch {
	case e.Reason == event.TooLarge:
		return "too_large", c.entity + " takes no message that large"
	case errors.Is(e.Err, ErrReturned):
		return "returned", fmt.Sprintf("%s takes nothing now: if that goes on, look at its state in the namespace %s, and at Azure's status", c.entity, c.Host)
	case said.condition != "":
		return "", ""
	case errors.Is(e.Err, context.DeadlineExceeded):
		return outbound.CauseSilent, c.explainSilence(doing)
	}
	if f, is := errors.AsType[*outbound.Failure](outbound.Explain(e.Err, c.Host)); is {
		return f.Cause, f.What
	}
	return "", ""
}

func (c *Connections) explainSilence(doing Doing) string {
	switch {
	case !c.reached.Load():
		return c.address + " doesn't let a connection come about in time: check firewalls, the address and the network in between, or it hangs"
	case doing == Sending:
		return c.entity + " did not confirm in time what was sent: the service hangs, is overloaded, or something in between holds its answers back"
	default:
		return c.Host + " takes connections and doesn't answer: the service hangs, or something in between holds its answers back"
	}
}

// explainRefusal tells why a key or an identity is refused, which the services say
// in words alone.
func (c *Connections) explainRefusal(said words) (cause, what string) {
	text := strings.ToLower(said.text)
	has := func(any ...string) bool {
		for _, s := range any {
			if strings.Contains(text, s) {
				return true
			}
		}
		return false
	}
	const unauthorized = "unauthorized"
	switch {
	case has("ip has been prevented", "ip address", "ipfilter", "ip filter"):
		return "firewall", fmt.Sprintf("the firewall of the namespace %s doesn't let this machine in: allow its address or network there", c.Host)
	case has("localauthdisabled", "sas authentication", "local authentication"):
		return "keys_disabled", fmt.Sprintf("the namespace %s takes no keys: allow local authentication there, or set the endpoint's authentication to identityBased", c.Host)
	case has("expired"):
		if c.identity {
			return "expired", fmt.Sprintf("the token of this process's identity has expired for the namespace %s: check the clock of this machine", c.Host)
		}
		return "expired", fmt.Sprintf("the token for %s has expired: put a new signature into the endpoint or, if it has a key, set the clock of this machine", c.entity)
	case c.identity:
		return unauthorized, fmt.Sprintf("this process's identity may not send to %s: assign it the role of a data sender in the namespace %s", c.entity, c.Host)
	case has("claim"):
		return "no_right", fmt.Sprintf("the key's policy may not send to %s: give it the right Send, or use another policy's key", c.entity)
	case has("signature"):
		return unauthorized, fmt.Sprintf("the namespace %s refuses the key, it may have been regenerated: copy the present one into the endpoint", c.Host)
	default:
		return unauthorized, fmt.Sprintf("the namespace %s refuses the key: check the policy's name and key in the endpoint", c.Host)
	}
}

// failure returns why a connection was not made, if that is what an error says. The
// SDKs keep it as text alone.
func (c *Connections) failure(err error, text string) *outbound.Failure {
	if f, is := errors.AsType[*outbound.Failure](err); is {
		return f
	}
	if last := c.undialled.Load(); last != nil && text == last.Error() {
		return last
	}
	return nil
}

// entityOfType returns what an endpoint sends to, as a sentence names it.
func entityOfType(e endpoints.Endpoint) string {
	if e.Type == endpoints.TypeEventHub {
		return fmt.Sprintf("the hub %q", e.Path)
	}
	return fmt.Sprintf("the topic %q", e.Path)
}
