// Command showconfig prints, as JSON, the configuration that a file and the
// environment come to, with all defaults and without the secrets; or everything
// that is wrong with them. The check of deploy/ (tools/deploycheck), a module of
// its own, runs it to see the manifests' configuration as the program will.
//
//	showconfig twinegress.yaml
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"twinegress/internal/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: showconfig FILE")
		os.Exit(2)
	}
	cfg, err := config.Load(config.Sources{File: os.Args[1]})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
