package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/internal/config"
	"twinegress/internal/similar"
	"twinegress/internal/untrusted"
)

// configFlags are --config and --set.
type configFlags struct {
	file  string
	set   []string
	quiet bool // the command says itself which file is read
	cmd   *cobra.Command
}

// foundFile is the configuration file that is read where --config names none.
const foundFile = "./twinegress.yaml"

func (c *configFlags) add(cmd *cobra.Command) {
	c.cmd = cmd
	cmd.Flags().StringVar(&c.file, "config", "", "configuration file (YAML); without it "+foundFile+" if there is one, else the defaults and TWINEGRESS_… variables")
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
	if _, err := os.Stat(foundFile); c.file == "" && !errors.Is(err, fs.ErrNotExist) {
		c.file = foundFile
		if !c.quiet {
			fmt.Fprintf(c.cmd.ErrOrStderr(), "the configuration is %s, since --config names none\n", foundFile)
		}
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

// logFlags adds --log-level and --log-format.
func logFlags(cmd *cobra.Command, to *app.LogOptions, level string) {
	last := len(app.Levels) - 1
	cmd.Flags().StringVar(&to.Level, "log-level", level, strings.Join(app.Levels[:last], ", ")+" or "+app.Levels[last])
	cmd.Flags().StringVar(&to.Format, "log-format", "", "text or json (default text on a terminal, json elsewhere)")
	completeFrom(cmd, "log-level", app.Levels)
	completeFrom(cmd, "log-format", app.Formats)
}

// completeFrom makes the shell complete a flag's value from words.
func completeFrom(cmd *cobra.Command, flag string, words []string) {
	complete := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic("BUG: " + err.Error())
	}
}

// noSuchCommand is the Args of a command that has others below it: what it is given
// is a mistyped one.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, append(c.Aliases, c.Name())...)
		}
	}
	hint := "see " + cmd.CommandPath() + " --help"
	if meant := similar.Closest(args[0], names); meant != "" {
		hint = "did you mean " + cmd.CommandPath() + " " + meant + "?"
	}
	return usageError{fmt.Errorf("unknown command %q: %s", untrusted.Short(args[0], 40), hint)}
}

// meantFlag returns which of the command's flags an unknown one was meant to be.
func meantFlag(cmd *cobra.Command, err error) string {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return ""
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if meant := similar.Closest(unknown.GetSpecifiedName(), names); meant != "" {
		return "; did you mean --" + meant + "?"
	}
	return ""
}
