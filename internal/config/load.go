package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3" // koanf's own, for YAML that isn't a section

	"twinegress/internal/file"
	"twinegress/internal/similar"
)

// Sources are the sources of the configuration. The zero value is the defaults
// and this process's environment.
type Sources struct {
	// File is a YAML file, which must exist; empty: none.
	File string
	// Environ has the form KEY=value; nil: os.Environ().
	Environ []string
	// IgnoreEnv are TWINEGRESS_… variables that are no configuration keys,
	// such as those of other commands.
	IgnoreEnv []string
	// Overrides are --set key=value. They win over all others.
	Overrides map[string]string
}

// Load reads all sources and validates the result. An error is Errors, with all
// errors of all sources; the Config must not be used then.
func Load(src Sources) (Config, error) {
	l := &loader{all: koanf.New("."), from: map[string]string{}}
	l.file(src.File)
	l.env(src)
	l.overrides(src.Overrides)

	cfg := Default()
	for path, raw := range l.all.All() {
		k, ok := findKey(path)
		if !ok || raw == nil {
			continue // an empty section, or a key without a value: the default
		}
		if err := set(&cfg, k, raw); err != nil {
			l.fail(path, err.Error())
		}
	}
	l.tokensFile(&cfg.API)
	unread := slices.Clone(l.errs)
	for _, e := range cfg.check() {
		// A value that couldn't be parsed has its error already.
		base, _, _ := strings.Cut(e.Key, "[")
		if !slices.ContainsFunc(unread, func(u KeyError) bool { return u.Key == base }) {
			e.Source = l.from[base]
			l.errs = append(l.errs, e)
		}
	}
	// Not part of Validate, which can't distinguish a default from the same value
	// set by the user, who then expects the API to be served.
	if source, byHand := l.from["api.listen"]; byHand && cfg.API.Listen != "" && !cfg.API.authenticates() &&
		!slices.ContainsFunc(unread, func(u KeyError) bool {
			return u.Key == "api.tokens" || u.Key == "api.tokensFile" || u.Key == "api.oidc.issuer"
		}) {
		l.errs = append(l.errs, KeyError{"api.listen", "is set, but nobody could call the API: add api.tokens, api.tokensFile or api.oidc, or leave this out", source})
	}
	cfg.canonical()
	return cfg, l.errs.err()
}

// loader merges the sources, later ones over earlier ones, and records the
// source of each key's value.
type loader struct {
	all  *koanf.Koanf
	from map[string]string // key to source, of keys that have a value
	errs Errors
}

func (l *loader) fail(path, message string) {
	l.errs = append(l.errs, KeyError{path, message, l.from[path]})
}

// merge merges one source, a map of full keys to values. It adds an error for
// each key that doesn't exist. source returns the name of a key's source.
func (l *loader) merge(flat map[string]any, source func(path string) string) {
	good := make(map[string]any, len(flat))
	for path, raw := range flat {
		_, isKey := findKey(path)
		switch {
		case isKey && raw != nil:
			good[path], l.from[path] = raw, source(path)
		case isKey: // no value: that of an earlier source is kept
		case slices.Contains(sections, path):
			// An empty section is fine, nil or {}.
			if m, ok := raw.(map[string]any); raw != nil && (!ok || len(m) > 0) {
				l.errs = append(l.errs, KeyError{path, "is a section, not a value", source(path)})
			}
		default:
			l.errs = append(l.errs, KeyError{namedKey(path), unknownKey(path), source(path)})
		}
	}
	if err := l.all.Load(confmap.Provider(good, "."), nil); err != nil {
		l.errs.add("configuration", "%v", err)
	}
}

func (l *loader) file(path string) {
	if path == "" {
		return
	}
	data, err := file.Read(path)
	if err != nil {
		if tried, absErr := filepath.Abs(path); absErr == nil { // of a relative one nobody sees from where
			path = tried
		}
		l.errs.add(path, "the configuration file can't be read: %v", err)
		return
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		l.errs.add(path, "is not a YAML file of keys and values: %s", yamlError(err))
		return
	}
	l.dotted(k.Raw(), path)
	l.merge(k.All(), func(string) string { return path })
}

// tokensFile appends the tokens of api.tokensFile to those of the other sources.
// Its errors name a token api.tokens[n], with the index in the whole list. No
// error quotes the file: it may have the tokens themselves, and YAML's errors
// would show them.
func (l *loader) tokensFile(a *API) {
	if a.TokensFile == "" {
		return
	}
	data, err := file.Read(a.TokensFile)
	if err != nil {
		l.fail("api.tokensFile", err.Error())
		return
	}
	var raw any
	if yamlv3.Unmarshal(data, &raw) != nil {
		l.fail("api.tokensFile", a.TokensFile+" is neither YAML nor JSON")
		return
	}
	list, err := tokens(raw)
	if err != nil {
		l.fail("api.tokensFile", a.TokensFile+": "+err.Error())
		return
	}
	a.Tokens = append(slices.Clone(a.Tokens), list...)
}

// dotted rejects the key a.b in place of b in the section a. One file could have
// both, and which of them wins would be undefined.
func (l *loader) dotted(section map[string]any, file string) {
	for name, v := range section {
		if strings.Contains(name, ".") {
			l.errs = append(l.errs, KeyError{namedKey(name), "must be written as sections, without a dot", file})
		}
		if m, ok := v.(map[string]any); ok {
			l.dotted(m, file)
		}
	}
}

// serviceEnv matches the variables that Kubernetes and Docker's links set in
// every container beside a service called twinegress, or twinegress-something.
// As unknown keys they would keep twinegress from starting.
var serviceEnv = regexp.MustCompile(
	`^TWINEGRESS_([A-Z0-9_]+_)?(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+$|PORT=(tcp|udp|sctp)://|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?=)`)

func (l *loader) env(src Sources) {
	environ := src.Environ
	if environ == nil {
		environ = os.Environ()
	}
	environ = slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return serviceEnv.MatchString(kv) || slices.Contains(src.IgnoreEnv, name)
	})
	paths := map[string]string{}
	for _, k := range keys {
		paths[envName(k.path)] = k.path
	}
	// Without a delimiter, so that koanf doesn't split the keys.
	flat, err := env.Provider("", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			path, ok := paths[strings.ToUpper(name)]
			if !ok {
				l.errs.add(namedKey(name), "unknown environment variable; %s", meantVariable(name))
			}
			return path, value // koanf skips an empty path
		},
	}).Read()
	if err != nil {
		l.errs.add("environment", "%v", err)
		return
	}
	l.merge(flat, func(path string) string { return "environment variable " + envName(path) })
}

// meantVariable describes the variable that an unknown one was meant to be.
func meantVariable(name string) string {
	behind := make([]string, len(keys))
	for i, k := range keys {
		behind[i] = strings.TrimPrefix(envName(k.path), envPrefix)
	}
	if meant := similar.Closest(strings.TrimPrefix(name, envPrefix), behind); meant != "" {
		return "did you mean " + envPrefix + meant + "?"
	}
	return "a key's is, for example, " + envName("ingest.maxInFlightBytes") + " for ingest.maxInFlightBytes"
}

func (l *loader) overrides(set map[string]string) {
	flat := make(map[string]any, len(set))
	for path, value := range set {
		if k, ok := findKey(path); ok && k.secret() {
			l.errs = append(l.errs, KeyError{path, "is a secret, and other users of the machine see a command line: set " +
				envName(path) + " in the environment, or have it in a file", "--set"})
			continue
		}
		flat[path] = value
	}
	l.merge(flat, func(string) string { return "--set" })
}
