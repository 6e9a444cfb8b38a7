package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	xterm "golang.org/x/term"
)

// readBody reads an endpoint from a file, or from standard input for "-". On a
// terminal it says what it waits for.
func readBody(cmd *cobra.Command, file string) ([]byte, error) {
	if file != "-" {
		// Not only regular files: the shell's <(…) is a pipe.
		f, err := os.Open(file)
		if err != nil {
			return nil, usageError{fmt.Errorf("--file: %w", err)}
		}
		defer func() { _ = f.Close() }() // nothing was written
		body, err := readUntil(cmd.Context(), f)
		if err != nil {
			return nil, usageError{fmt.Errorf("--file %s: %w", file, err)}
		}
		return body, nil
	}
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && xterm.IsTerminal(int(f.Fd())) {
		fmt.Fprintln(cmd.ErrOrStderr(), "reading the endpoint's JSON from standard input: Ctrl-D ends it, --file reads a file")
	}
	body, err := readUntil(cmd.Context(), in)
	if err != nil {
		return nil, fmt.Errorf("reading the endpoint from standard input: %w", err)
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		return nil, usageError{errors.New("standard input is empty: pipe the endpoint's JSON in, or name a --file")}
	}
	return body, nil
}

// readUntil reads all of in, but no longer than until ctx ends. A read of a terminal or
// a pipe can't be interrupted: its goroutine then ends with the process.
func readUntil(ctx context.Context, in io.Reader) ([]byte, error) {
	type result struct {
		body []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		body, err := readAtMost(in, maxBody)
		done <- result{body, err}
	}()
	select {
	case r := <-done:
		return r.body, r.err
	case <-ctx.Done():
		return nil, errors.New("interrupted")
	}
}
