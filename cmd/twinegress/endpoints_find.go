package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"twinegress/endpoints"
	"twinegress/internal/similar"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

// oneEndpoint is the Args of a command about one endpoint.
func oneEndpoint(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usageError{fmt.Errorf("%d endpoints given, one is needed: its id or its name (see %s --help)", len(args), cmd.CommandPath())}
}

// shortID is how many characters of an id stand for the whole where an endpoint
// has no name.
const shortID = 8

// findEndpoint returns the id of the endpoint with that id, name, or beginning of an
// id; "" is none.
func findEndpoint(set []endpoints.Endpoint, wanted string) (string, error) {
	if wanted == "" {
		return "", nil
	}
	var named, begin []endpoints.Endpoint
	for _, e := range set {
		switch {
		case strings.EqualFold(e.ID, wanted):
			return e.ID, nil
		case e.Name == wanted:
			named = append(named, e)
		case len(wanted) >= shortID && strings.HasPrefix(strings.ToLower(e.ID), strings.ToLower(wanted)):
			begin = append(begin, e)
		}
	}
	switch {
	case len(named) == 1:
		return named[0].ID, nil
	case len(named) > 1:
		return "", fmt.Errorf("%d endpoints have that name: give the id. They are: %s", len(named), describe(named))
	case len(begin) == 1:
		return begin[0].ID, nil
	case len(begin) > 1:
		return "", fmt.Errorf("%d endpoints have an id that begins so: give more of it. They are: %s", len(begin), describe(begin))
	}
	if meant := meantEndpoint(set, wanted); meant != nil {
		return "", fmt.Errorf("no endpoint has that id or name; did you mean %s?", describe(meant))
	}
	return "", fmt.Errorf("no endpoint has that id or name; there are: %s", describe(set))
}

// meantEndpoint returns the endpoints that a mistyped name or id was meant to be.
func meantEndpoint(set []endpoints.Endpoint, wanted string) (meant []endpoints.Endpoint) {
	known := make([]string, 0, 2*len(set))
	for _, e := range set {
		known = append(known, e.Name, e.ID)
	}
	closest := similar.Closest(wanted, known)
	for _, e := range set {
		if closest != "" && (e.Name == closest || e.ID == closest) || closest == "" && contains(e.Name, wanted) {
			meant = append(meant, e)
		}
	}
	return meant
}

// contains reports whether one of two names is in the other, without regard to case.
func contains(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	return a != "" && (strings.Contains(a, b) || strings.Contains(b, a))
}

// describe lists endpoints, a few if there are many.
func describe(set []endpoints.Endpoint) string {
	if len(set) == 0 {
		return "none"
	}
	const most = 10
	var texts []string
	for _, e := range set[:min(len(set), most)] {
		texts = append(texts, strings.Join(strings.Fields(untrusted.Text(e.Name+" "+e.ID)), " "))
	}
	if n := len(set) - most; n > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(texts, ", ")
}

// resolve returns an endpoint's id. A UUID is returned as it is, without a
// look-up, so that the usual call is a single request.
func (a *apiClient) resolve(ctx context.Context, idOrName string) (string, error) {
	if uuid.Validate(idOrName) == nil {
		return idOrName, nil
	}
	list, err := a.list(ctx)
	if err != nil {
		return "", err
	}
	set := make([]endpoints.Endpoint, len(list))
	for i, e := range list {
		set[i] = endpoints.Endpoint{ID: e.ID, Name: e.Name}
	}
	id, err := findEndpoint(set, idOrName)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", untrusted.Text(idOrName), err)
	case id == "":
		return "", usageError{errors.New("the id is empty")}
	}
	return id, nil
}

// get returns the endpoint with that id, and its ETag.
func (a *apiClient) get(ctx context.Context, id string) (e api.Endpoint, etag string, err error) {
	r, err := a.do(ctx, call{method: http.MethodGet, path: "/" + id})
	if err != nil {
		return e, "", err
	}
	return e, r.header.Get("ETag"), r.decode(&e)
}

// change looks an endpoint up, then sends a call that changes it. It returns the
// endpoint as it was.
func (c *apiFlags) change(ctx context.Context, idOrName string, one call) (a *apiClient, before api.Endpoint, etag string, err error) {
	if a, err = c.client(); err != nil {
		return nil, before, "", err
	}
	id, err := a.resolve(ctx, idOrName)
	if err != nil {
		return nil, before, "", err
	}
	if before, etag, err = a.get(ctx, id); err != nil {
		return nil, before, "", err
	}
	one.path = "/" + id + one.path
	_, err = a.do(ctx, one)
	return a, before, etag, err
}

// completeIDs returns the names and ids for the shell, described by type and path.
func (c *apiFlags) completeIDs(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := c.client()
	if err != nil {
		return cobra.AppendActiveHelp(nil, err.Error()), cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	list, err := client.list(ctx)
	if err != nil {
		return cobra.AppendActiveHelp(nil, err.Error()), cobra.ShellCompDirectiveNoFileComp
	}
	times := make(map[string]int)
	for _, e := range list {
		times[e.Name]++
	}
	found := make([]string, 0, len(list))
	for _, e := range list {
		about := "\t" + untrusted.Text(strings.TrimSpace(string(e.Type)+" "+e.Path+" "+e.Name))
		byName := e.Name != "" && times[e.Name] == 1 && !strings.ContainsFunc(e.Name, unicode.IsSpace)
		if byName {
			found = append(found, untrusted.Text(e.Name)+about)
		}
		if !byName || begun != "" {
			found = append(found, untrusted.Text(e.ID)+about)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
