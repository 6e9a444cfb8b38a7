package config

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3" // koanf's own, for what is no section
)

// Sources says where to read from. The zero value is the defaults and this
// process's environment.
type Sources struct {
	// File is a YAML file; empty: none. A file that is named must exist.
	File string
	// Environ is KEY=value each; nil: os.Environ().
	Environ []string
	// IgnoreEnv are TWINEGRESS_… variables that are no configuration keys,
	// such as those of other commands.
	IgnoreEnv []string
	// Overrides are --set key=value, the last word.
	Overrides map[string]string
}

// Load reads all sources and validates the result. An error is Errors: all
// that is wrong in any of them. With an error the Config is not to be used.
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
		// Of a value that couldn't be read there is nothing more to say.
		base, _, _ := strings.Cut(e.Key, "[")
		if !slices.ContainsFunc(unread, func(u KeyError) bool { return u.Key == base }) {
			e.Source = l.from[base]
			l.errs = append(l.errs, e)
		}
	}
	// Not part of Validate, which can't tell a default from the same value set
	// by hand: the latter shows that somebody counts on the API.
	if source, byHand := l.from["api.listen"]; byHand && cfg.API.Listen != "" && !cfg.API.authenticates() &&
		!slices.ContainsFunc(unread, func(u KeyError) bool {
			return u.Key == "api.tokens" || u.Key == "api.tokensFile" || u.Key == "api.oidc.issuer"
		}) {
		l.errs = append(l.errs, KeyError{"api.listen", "is set, but nobody could call the API: add api.tokens, api.tokensFile or api.oidc, or leave this out", source})
	}
	cfg.canonical()
	return cfg, l.errs.err()
}

// loader merges the sources, the later over the earlier, and keeps record of
// where each key's value came from.
type loader struct {
	all  *koanf.Koanf
	from map[string]string // key to source, of keys that have a value
	errs Errors
}

func (l *loader) fail(path, message string) {
	l.errs = append(l.errs, KeyError{path, message, l.from[path]})
}

// take merges one source, given as full keys and their values, without the
// keys that don't exist, which it reports. source names where a key came from.
func (l *loader) take(flat map[string]any, source func(path string) string) {
	good := make(map[string]any, len(flat))
	for path, raw := range flat {
		_, isKey := findKey(path)
		switch {
		case isKey && raw != nil:
			good[path], l.from[path] = raw, source(path)
		case isKey: // no value: what an earlier source says stands
		case slices.Contains(sections, path):
			// An empty section is fine, nil or {}.
			if m, ok := raw.(map[string]any); raw != nil && (!ok || len(m) > 0) {
				l.errs = append(l.errs, KeyError{path, "is a section, not a value", source(path)})
			}
		default:
			l.errs = append(l.errs, KeyError{path, unknownKey(path), source(path)})
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
	data, err := os.ReadFile(path)
	if err != nil {
		l.errs.add(path, "the configuration file can't be read: %v", err)
		return
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		l.errs.add(path, "is not a YAML file of keys and values: %v", err)
		return
	}
	l.dotted(k.Raw(), path)
	l.take(k.All(), func(string) string { return path })
}

// tokensFile adds the tokens of api.tokensFile to those of the other sources.
// What is wrong with one of them is said as api.tokens[n], counted on from
// those. No error quotes the file: somebody may have put the tokens themselves
// there, and YAML's errors would show them.
func (l *loader) tokensFile(a *API) {
	if a.TokensFile == "" {
		return
	}
	data, err := os.ReadFile(a.TokensFile)
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

// dotted refuses a.b: in place of the section a with b in it. Both could stand
// in one file, and which of them wins would be a matter of luck.
func (l *loader) dotted(section map[string]any, file string) {
	for name, v := range section {
		if strings.Contains(name, ".") {
			l.errs = append(l.errs, KeyError{name, "must be written as sections, without a dot", file})
		}
		if m, ok := v.(map[string]any); ok {
			l.dotted(m, file)
		}
	}
}

// serviceEnv matches what Kubernetes and Docker's links put into the
// environment of every container beside a service called twinegress, or
// twinegress-something. Without this such a service would keep us from starting.
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
	// Without a delimiter, so that the keys stay whole.
	flat, err := env.Provider("", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			path, ok := paths[strings.ToUpper(name)]
			if !ok {
				l.errs.add(name, "unknown environment variable; a key's is, for example, %s for ingest.maxInFlightBytes",
					envName("ingest.maxInFlightBytes"))
			}
			return path, value // an empty path is left out
		},
	}).Read()
	if err != nil {
		l.errs.add("environment", "%v", err)
		return
	}
	l.take(flat, func(path string) string { return "environment variable " + envName(path) })
}

func (l *loader) overrides(set map[string]string) {
	flat := make(map[string]any, len(set))
	for path, value := range set {
		flat[path] = value
	}
	l.take(flat, func(string) string { return "--set" })
}
