package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"twinegress/internal/certfile"
	"twinegress/internal/config"
	"twinegress/internal/file"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

const (
	// maxBody is more than the server takes, which says then how much that is.
	maxBody = 2 << 20
	// maxReply has room for a list of 20,000 endpoints with long filters.
	maxReply = 128 << 20
	// maxReplyHeader: twinegress sends less than one KiB.
	maxReplyHeader = 64 << 10
	// maxDetails is how many of a reply's mistakes are shown.
	maxDetails = 100
	// callTimeout is for the whole call, reading the reply included.
	callTimeout = 30 * time.Second
)

// apiClient calls the Management API.
type apiClient struct {
	base   string // up to and with api.Base
	server string // as --server says it
	token  string
	http   *http.Client
}

// call is a request to it.
type call struct {
	method  string
	what    string // of the API, such as /fleet; empty: /endpoints
	path    string // behind that, or behind the endpoint that it is about
	body    []byte
	ifMatch string
}

func (c *apiFlags) client() (*apiClient, error) {
	server := cmp.Or(c.server, os.Getenv(serverVariable), defaultServer)
	at, err := url.Parse(server)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" || at.User != nil || at.RawQuery != "" {
		// The URL is not quoted in the error: it may have a password in it.
		return nil, usageError{fmt.Errorf("--server: must be a URL such as %s, without user and query", defaultServer)}
	}
	token, err := c.token()
	if err != nil {
		return nil, usageError{err}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // a command makes one request or two
	transport.MaxResponseHeaderBytes = maxReplyHeader
	if c.caFile != "" {
		roots, err := certfile.ReadRoots(c.caFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("--ca-file: %w", err)}
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	base := strings.TrimSuffix(strings.TrimSuffix(at.String(), "/"), api.Base) + api.Base
	return &apiClient{base: base, server: server, token: token, http: &http.Client{
		Transport: transport, Timeout: callTimeout,
		// The token, and the keys in a body, are for this server only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// token returns the token of --token-file, or of the environment.
func (c *apiFlags) token() (string, error) {
	token := os.Getenv(tokenVariable)
	if c.tokenFile != "" {
		data, err := file.Read(c.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		token = string(data)
	}
	token = bareToken(token)
	switch {
	case token == "":
		return "", errors.New("a token is required: in --token-file, or in " + tokenVariable + " in the environment")
	case strings.ContainsFunc(token, unicode.IsControl):
		return "", errors.New("the token has a line break or another control character in it")
	}
	return token, nil
}

// bareToken returns a token without what people copy with it: line breaks that editors
// and echo append, quotes, and the scheme of the header that it goes into.
func bareToken(token string) string {
	for {
		bare := strings.TrimSpace(token)
		if n := len(bare); n > 1 && (bare[0] == '"' || bare[0] == '\'') && bare[n-1] == bare[0] {
			bare = bare[1 : n-1]
		}
		if scheme, rest, ok := strings.Cut(bare, " "); ok {
			if scheme = strings.TrimSuffix(strings.ToLower(scheme), ":"); scheme == "bearer" || scheme == "authorization" {
				bare = rest
			}
		}
		if bare == token {
			return token
		}
		token = bare
	}
}

// readAtMost reads all of r, or fails if that is more than most.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("is longer than %s", config.ByteSize(most))
	}
	return data, err
}

func (a *apiClient) list(ctx context.Context) ([]api.Endpoint, error) {
	r, err := a.do(ctx, call{method: http.MethodGet})
	if err != nil {
		return nil, err
	}
	var list []api.Endpoint
	return list, r.decode(&list)
}

// do sends a call.
func (c *apiFlags) do(ctx context.Context, one call) (reply, error) {
	client, err := c.client()
	if err != nil {
		return reply{}, err
	}
	return client.do(ctx, one)
}

// doForOne sends a call about the endpoint with that id or name.
func (c *apiFlags) doForOne(ctx context.Context, idOrName string, one call) (reply, error) {
	client, err := c.client()
	if err != nil {
		return reply{}, err
	}
	id, err := client.resolve(ctx, idOrName)
	if err != nil {
		return reply{}, err
	}
	one.path = "/" + id + one.path
	return client.do(ctx, one)
}

// do sends the request. Any status but success is an error with the server's
// message.
func (a *apiClient) do(ctx context.Context, c call) (reply, error) {
	response, err := a.send(ctx, c)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	body, err := a.body(response)
	if err != nil {
		return reply{}, err
	}
	return reply{header: response.Header, body: body}, nil
}

// body reads the body of a response.
func (a *apiClient) body(response *http.Response) ([]byte, error) {
	body, err := readAtMost(response.Body, maxReply)
	if err != nil {
		return nil, fmt.Errorf("%s: the answer can't be read to its end: %s", a.base, untrusted.Text(err.Error()))
	}
	return body, nil
}

// send sends the request, and returns a successful response, whose body is the
// caller's to read and to close.
func (a *apiClient) send(ctx context.Context, c call) (*http.Response, error) {
	at := a.base + cmp.Or(c.what, "/endpoints")
	request, err := http.NewRequestWithContext(ctx, c.method, at+c.path, bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("User-Agent", "twinegress/"+version)
	if c.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.ifMatch != "" {
		request.Header.Set("If-Match", quotedTag(c.ifMatch))
	}
	response, err := a.http.Do(request)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			if failed.Timeout() {
				return nil, fmt.Errorf("%s does not answer in time", at)
			}
			err = failed.Err // which lacks the method and the URL: the message below has the URL
		}
		return nil, fmt.Errorf("%s can't be reached: %s (is --server right, and api.listen set there?)", at, untrusted.Text(err.Error()))
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	body, err := a.body(response)
	if err != nil {
		return nil, err
	}
	path, _, _ := strings.Cut(c.path, "?") // a query is what the user typed: it may be a key, in the wrong place
	return nil, replyRefusal{response.StatusCode, replyError(response, body, c.method+" "+at+path)}
}

// replyRefusal is a reply that is no success.
type replyRefusal struct {
	code int // of HTTP
	error
}

// quotedTag adds the quotes of an ETag, which a shell removes.
func quotedTag(tag string) string {
	if tag == "*" || strings.HasPrefix(tag, `"`) || strings.HasPrefix(tag, "W/") {
		return tag
	}
	return `"` + tag + `"`
}

// replyError returns an error with the message and all details of the reply, and what
// was asked for.
func replyError(response *http.Response, body []byte, tried string) error {
	if to := response.Header.Get("Location"); response.StatusCode < 400 && to != "" {
		return fmt.Errorf("the server sends on to %s: that is not followed, since it would get the token; if it is right, give it as --server (%s)", untrusted.Text(to), tried)
	}
	var e struct {
		Error struct {
			Message string
			Details []api.Detail
		}
	}
	if json.Unmarshal(body, &e) != nil || e.Error.Message == "" {
		return fmt.Errorf("the server answered %s: is it the Management API of twinegress? (%s)", untrusted.Text(response.Status), tried)
	}
	message := untrusted.Text(e.Error.Message)
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		tried += "; see --token-file, or " + tokenVariable
	case response.StatusCode >= 500:
		tried += "; request " + untrusted.Text(response.Header.Get("X-Ms-Request-Id"))
	}
	if len(e.Error.Details) > 1 {
		message, _, _ = strings.Cut(message, ":")
		lines := []string{message + " (" + tried + ")"}
		for _, d := range e.Error.Details[:min(len(e.Error.Details), maxDetails)] {
			lines = append(lines, untrusted.Text(cmp.Or(d.Field, "body")+": "+d.Message))
		}
		if n := len(e.Error.Details) - maxDetails; n > 0 {
			lines = append(lines, fmt.Sprintf("and %d more", n))
		}
		return errors.New(strings.Join(lines, "\n  "))
	}
	return errors.New(message + " (" + tried + ")")
}

// reply is a successful reply of the API.
type reply struct {
	header http.Header
	body   []byte
}

func (r reply) decode(into any) error {
	if err := json.Unmarshal(r.body, into); err != nil {
		return unreadable(err)
	}
	return nil
}

func unreadable(err error) error {
	return fmt.Errorf("the server's answer can't be read: is it the Management API of twinegress? %s", untrusted.Text(err.Error()))
}
