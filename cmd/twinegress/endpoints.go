package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

const (
	serverVariable = "TWINEGRESS_SERVER"
	tokenVariable  = "TWINEGRESS_TOKEN"
	defaultServer  = "http://127.0.0.1:8080"
)

// apiFlags are the flags by which the commands of `endpoints` find the API.
type apiFlags struct{ server, tokenFile, caFile string }

func endpointsCommand() *cobra.Command {
	var c apiFlags
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "List, create and change endpoints of a running twinegress",
		Long: "Calls the Management API of a running twinegress. An endpoint is named by its id or its name.\n" +
			"The token is read from --token-file, or else from " + tokenVariable + ": no flag takes it, since other users of the\n" +
			"machine see a command line.",
		Example: "  export TWINEGRESS_SERVER=https://twinegress:8080 TWINEGRESS_TOKEN=…\n" +
			"  twinegress endpoints list\n" +
			"  twinegress endpoints create --file hub.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&c.server, "server", "", "where the API is (default $"+serverVariable+", else "+defaultServer+")")
	f.StringVar(&c.tokenFile, "token-file", "", "a file that holds a token of the API (default $"+tokenVariable+")")
	f.StringVar(&c.caFile, "ca-file", "", "further root certificates for the server, PEM")
	cmd.AddCommand(c.listCommand(), c.getCommand(), c.createCommand(), c.updateCommand(), c.deleteCommand(), c.retryCommand())
	return cmd
}

func (c *apiFlags) listCommand() *cobra.Command {
	var types, eventTypes []string
	var output string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List endpoints and how they are doing",
		Example: "  twinegress endpoints list --types EventHub,ServiceBus --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			for name, values := range map[string][]string{"types": types, "eventTypes": eventTypes} {
				if len(values) > 0 {
					query.Set(name, strings.Join(values, ","))
				}
			}
			reply, err := c.do(cmd.Context(), call{method: http.MethodGet, path: "?" + query.Encode()})
			if err != nil {
				return err
			}
			return show(cmd, reply, output, printEndpoints)
		},
	}
	cmd.Flags().StringSliceVar(&types, "types", nil, "only endpoints of these types")
	cmd.Flags().StringSliceVar(&eventTypes, "event-types", nil, "only endpoints that take one of these event types")
	completeFrom(cmd, "types", words(endpoints.Types()))
	completeFrom(cmd, "event-types", endpoints.EventTypes())
	outputFlag(cmd, &output, "table")
	return cmd
}

func (c *apiFlags) getCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:               "get ID",
		Short:             "Show one endpoint, its keys masked",
		Example:           "  twinegress endpoints get 568fd394-380b-46fa-925a-ebb96f658cce --output json > hub.json",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			reply, err := c.doForOne(cmd.Context(), args[0], call{method: http.MethodGet})
			if err != nil {
				return err
			}
			return show(cmd, reply, output, func(w io.Writer, e api.Endpoint) error {
				return printEndpoint(w, e, reply.header.Get("ETag"))
			})
		},
	}
	outputFlag(cmd, &output, "table")
	return cmd
}

func (c *apiFlags) createCommand() *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Create an endpoint from its JSON, and print its id",
		Example: "  twinegress endpoints create --file hub.json\n  envsubst < hub.json | twinegress endpoints create",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := readBody(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			reply, err := c.do(cmd.Context(), call{method: http.MethodPost, body: body})
			if err != nil {
				return err
			}
			var id string
			if err := reply.decode(&id); err != nil {
				return err
			}
			if output == "json" {
				return term.PrintJSON(cmd.OutOrStdout(), map[string]string{"id": id, "etag": reply.header.Get("ETag")})
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), untrusted.Text(id))
			return err
		},
	}
	fileFlag(cmd, &file)
	outputFlag(cmd, &output, "table")
	return cmd
}

func (c *apiFlags) updateCommand() *cobra.Command {
	var file, etag string
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Replace an endpoint by its JSON",
		Long:  "Replaces an endpoint. A masked key, as `get` shows it, stands for the stored one.",
		Example: "  twinegress endpoints get ID --output json > hub.json   # change something in it\n" +
			"  twinegress endpoints update ID --file hub.json",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := readBody(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			_, err = c.doForOne(cmd.Context(), args[0], call{method: http.MethodPut, body: body, ifMatch: etag})
			return err
		},
	}
	fileFlag(cmd, &file)
	etagFlag(cmd, &etag)
	return cmd
}

func (c *apiFlags) deleteCommand() *cobra.Command {
	var etag string
	cmd := &cobra.Command{
		Use:               "delete ID",
		Short:             "Delete an endpoint; what is queued for it is delivered",
		Example:           "  twinegress endpoints delete 568fd394-380b-46fa-925a-ebb96f658cce",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := c.doForOne(cmd.Context(), args[0], call{method: http.MethodDelete, ifMatch: etag})
			return err
		},
	}
	etagFlag(cmd, &etag)
	return cmd
}

func (c *apiFlags) retryCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "retry ID",
		Short:             "End an endpoint's back-off now",
		Example:           "  twinegress endpoints retry 568fd394-380b-46fa-925a-ebb96f658cce",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := c.doForOne(cmd.Context(), args[0], call{method: http.MethodPost, path: "/retry"})
			return err
		},
	}
}

func oneEndpoint(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usageError{fmt.Errorf("%d endpoints given, one is needed: its id or its name (see %s --help)", len(args), cmd.CommandPath())}
}

// completeIDs returns the ids for the shell, described by type, path and name.
func (c *apiFlags) completeIDs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
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
	ids := make([]string, len(list))
	for i, e := range list {
		ids[i] = untrusted.Text(e.ID) + "\t" + untrusted.Text(strings.TrimSpace(string(e.Type)+" "+e.Path+" "+e.Name))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func words[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

func fileFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVarP(to, "file", "f", "-", "the endpoint's JSON; - is standard input")
}

func etagFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "etag", "", "only if the endpoint is still the one that had this ETag, as endpoints get shows it")
}

// readBody reads the endpoint from a file or from standard input.
func readBody(file string, in io.Reader) ([]byte, error) {
	if file != "-" {
		// Not only regular files: the shell's <(…) is a pipe.
		f, err := os.Open(file)
		if err != nil {
			return nil, usageError{fmt.Errorf("--file: %w", err)}
		}
		defer func() { _ = f.Close() }() // nothing was written
		body, err := readAtMost(f, maxBody)
		if err != nil {
			return nil, usageError{fmt.Errorf("--file %s: %w", file, err)}
		}
		return body, nil
	}
	body, err := readAtMost(in, maxBody)
	if err != nil {
		return nil, fmt.Errorf("reading the endpoint from standard input: %w", err)
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		return nil, usageError{errors.New("standard input is empty: pipe the endpoint's JSON in, or name a --file")}
	}
	return body, nil
}

// show writes a reply: as JSON, or decoded by write.
func show[T any](cmd *cobra.Command, r reply, output string, write func(io.Writer, T) error) error {
	if output == "json" {
		var v json.RawMessage
		if err := r.decode(&v); err != nil {
			return err
		}
		return term.PrintJSON(cmd.OutOrStdout(), v)
	}
	var v T
	if err := r.decode(&v); err != nil {
		return err
	}
	return write(cmd.OutOrStdout(), v)
}
