package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

const (
	serverVariable = "TWINEGRESS_SERVER"
	tokenVariable  = "TWINEGRESS_TOKEN"
	defaultServer  = "http://127.0.0.1:8080"
)

// apiFlags are the flags by which a command finds the API.
type apiFlags struct{ server, tokenFile, caFile string }

func (c *apiFlags) add(f *pflag.FlagSet) {
	f.StringVar(&c.server, "server", "", "where the API is (default $"+serverVariable+", else "+defaultServer+")")
	f.StringVar(&c.tokenFile, "token-file", "", "a file that holds a token of the API (default $"+tokenVariable+")")
	f.StringVar(&c.caFile, "ca-file", "", "further root certificates for the server, PEM")
}

func endpointsCommand() *cobra.Command {
	var c apiFlags
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "List, create and change endpoints of a running twinegress",
		Long: "Calls the Management API of a running twinegress. ENDPOINT is an endpoint's id or its name, or the beginning of an id.\n" +
			"The token is read from --token-file, or else from " + tokenVariable + ": no flag takes it, since other users of the\n" +
			"machine see a command line.",
		Example: "  export TWINEGRESS_SERVER=https://twinegress:8080 TWINEGRESS_TOKEN=…\n" +
			"  twinegress endpoints list\n" +
			"  twinegress endpoints create --file hub.json",
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.add(cmd.PersistentFlags())
	cmd.AddCommand(c.listCommand(), c.getCommand(), c.createCommand(), c.updateCommand(), c.deleteCommand(),
		c.enableCommand(true), c.enableCommand(false), c.retryCommand(), c.seekCommand(), c.logCommand())
	return cmd
}

func (c *apiFlags) getCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:               "get ENDPOINT",
		Short:             "Show one endpoint, its keys masked",
		Example:           "  twinegress endpoints get hub --output json > hub.json",
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
			body, err := readBody(cmd, file)
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
			// The id alone, for id=$(…); who it is goes beside it, for a person.
			fmt.Fprintln(cmd.ErrOrStderr(), "created", nameInBody(body, id))
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
		Use:   "update ENDPOINT",
		Short: "Replace an endpoint by its JSON",
		Long:  "Replaces an endpoint. A masked key, as `get` shows it, stands for the stored one.",
		Example: "  twinegress endpoints get hub --output json > hub.json   # change something in it\n" +
			"  twinegress endpoints update hub --file hub.json",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := readBody(cmd, file)
			if err != nil {
				return err
			}
			client, before, was, err := c.change(cmd.Context(), args[0], call{method: http.MethodPut, body: body, ifMatch: etag})
			if err != nil {
				return err
			}
			after, is, err := client.get(cmd.Context(), before.ID)
			if err != nil {
				return fmt.Errorf("updated, but how it is now can't be read: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), updated(before, after, was, is))
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
		Use:               "delete ENDPOINT",
		Short:             "Delete an endpoint; what is queued for it is delivered",
		Example:           "  twinegress endpoints delete 568fd394-380b-46fa-925a-ebb96f658cce",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, before, _, err := c.change(cmd.Context(), args[0], call{method: http.MethodDelete, ifMatch: etag})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "deleted", nameOf(before))
			return err
		},
	}
	etagFlag(cmd, &etag)
	return cmd
}

func (c *apiFlags) retryCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "retry ENDPOINT",
		Short:             "End an endpoint's back-off now",
		Example:           "  twinegress endpoints retry 568fd394-380b-46fa-925a-ebb96f658cce",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, before, _, err := c.change(cmd.Context(), args[0], call{method: http.MethodPost, path: "/retry"})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), retried(before))
			return err
		},
	}
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
