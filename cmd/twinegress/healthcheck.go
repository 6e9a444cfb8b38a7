package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinegress/internal/untrusted"
)

const (
	// healthTimeout is less than a container's runtime allows by default.
	healthTimeout = 5 * time.Second
	// maxHealthReply has room for every reason why a copy isn't ready.
	maxHealthReply = 64 << 10
)

func healthcheckCommand() *cobra.Command {
	from := configFlags{quiet: true} // a line every few seconds, otherwise
	var ready bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the twinegress of this container whether it is well",
		Long: "Asks ops.listen, as the configuration says it, for /healthz, or with --ready for /readyz: for a container's health\n" +
			"check, where there is neither a shell nor curl. Reads the same configuration as `run`; an address of all\n" +
			"interfaces is asked on loopback. Exit 0 if the answer is good, else 1.",
		Example: "  twinegress healthcheck --config /etc/twinegress/twinegress.yaml --ready",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := from.load()
			if err != nil {
				return err
			}
			if cfg.Ops.Listen == "" {
				return errors.New("ops.listen is empty: there is nothing to ask")
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			said, err := askHealth(cmd.Context(), cfg.Ops.Listen, path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			return err
		},
	}
	from.add(cmd)
	cmd.Flags().BoolVar(&ready, "ready", false, "also whether events can flow: /readyz")
	return cmd
}

// askHealth returns what the listener answers, or an error if that isn't good.
func askHealth(ctx context.Context, listen, path string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("ops.listen: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
		if ip != nil && ip.To4() != nil {
			host = "127.0.0.1"
		}
	}
	at := "http://" + net.JoinHostPort(host, port) + path
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", err
	}
	// Not the default transport, whose proxy is for the world outside.
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", errors.New(untrusted.Text(err.Error()))
	}
	defer response.Body.Close()
	body, err := readAtMost(response.Body, maxHealthReply)
	if err != nil {
		return "", fmt.Errorf("%s: the answer can't be read: %s", at, untrusted.Text(err.Error()))
	}
	said := untrusted.Text(strings.TrimSpace(string(body)))
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s: %s", at, untrusted.Text(response.Status), said)
	}
	return said, nil
}
