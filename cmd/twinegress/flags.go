package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/internal/config"
)

// configFlags are --config and --set.
type configFlags struct {
	file string
	set  []string
}

func (c *configFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.file, "config", "", "configuration file (YAML); without one, the defaults and TWINEGRESS_… variables")
	// Not a flag of pairs: pflag's splits a value at its commas, and shows in its
	// errors what it could not split, which may be a password.
	cmd.Flags().StringArrayVar(&c.set, "set", nil, "override a key of the configuration, `KEY=VALUE`: --set batch.linger=10ms")
}

// load reads the configuration. Every error is a usage error.
func (c *configFlags) load() (config.Config, error) {
	overrides := make(map[string]string, len(c.set))
	for _, one := range c.set {
		key, value, ok := strings.Cut(one, "=")
		if !ok {
			return config.Config{}, usageError{errors.New("--set: must be KEY=VALUE, such as --set batch.linger=10ms")}
		}
		overrides[strings.TrimSpace(key)] = value
	}
	cfg, err := config.Load(config.Sources{
		File: c.file, Overrides: overrides,
		IgnoreEnv: []string{tokenVariable, serverVariable}, // ours, but no configuration keys
	})
	if err != nil {
		err = usageError{err}
	}
	return cfg, err
}

// outputFlag adds --output, with the values json and forPeople, the default.
func outputFlag(cmd *cobra.Command, to *string, forPeople string) {
	cmd.Flags().StringVar(to, "output", forPeople, "how to print the result: "+forPeople+" or json")
	completeFrom(cmd, "output", []string{forPeople, "json"})
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *to != forPeople && *to != "json" {
			return usageError{fmt.Errorf("--output %s: must be %s or json", *to, forPeople)}
		}
		return nil
	}
}

func levelFlag(cmd *cobra.Command, to *string, standard string) {
	last := len(app.Levels) - 1
	cmd.Flags().StringVar(to, "log-level", standard, strings.Join(app.Levels[:last], ", ")+" or "+app.Levels[last])
	completeFrom(cmd, "log-level", app.Levels)
}

// completeFrom makes the shell complete a flag's value from words.
func completeFrom(cmd *cobra.Command, flag string, words []string) {
	complete := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic("BUG: " + err.Error())
	}
}
