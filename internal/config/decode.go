package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set parses a raw value, from YAML or a text, into cfg. It replaces
// mapstructure, which accepts what users get wrong: it turns 0123 into the
// password 83, and a number into a duration in nanoseconds.
func set(cfg *Config, k key, raw any) (err error) {
	into := reflect.ValueOf(cfg).Elem().FieldByIndex(k.field).Addr().Interface()
	number := raw
	if n, ok := raw.(int); ok {
		number = strconv.Itoa(n)
	}
	switch p := into.(type) {
	case *string, *Secret:
		text, ok := raw.(string)
		if !ok {
			return errors.New("must be a string: put it in quotes")
		}
		reflect.ValueOf(p).Elem().SetString(text)
	case *bool:
		err = parse(p, raw, strconv.ParseBool)
	case *int:
		err = parse(p, raw, strconv.Atoi)
	case *time.Duration:
		err = parse(p, number, time.ParseDuration) // 0 needs no unit
	case *ByteSize:
		err = parse(p, number, ParseByteSize)
	case *[]string:
		var list []string
		if list, err = texts(raw); err == nil {
			*p = list
		}
	case *[]Token:
		list, err := tokens(raw)
		if err == nil {
			*p = list
		}
		return err
	default:
		panic(fmt.Sprintf("BUG: no way to read a %T", into))
	}
	if err != nil {
		return wrong(k, raw)
	}
	return nil
}

// parse sets p to a value of its type, or to what a text says.
func parse[T any](p *T, raw any, read func(string) (T, error)) (err error) {
	v, ok := raw.(T)
	if !ok {
		text, _ := raw.(string)
		if v, err = read(text); err != nil {
			return err
		}
	}
	*p = v
	return nil
}

func wrong(k key, raw any) error {
	switch raw := raw.(type) {
	case string:
		return fmt.Errorf("%s, not %s", want(k), quoted(raw))
	case int, float64, bool:
		return fmt.Errorf("%s, not %v", want(k), raw)
	}
	return errors.New(want(k))
}

// texts parses a list, or one text with commas, which is what a variable can hold.
func texts(raw any) ([]string, error) {
	switch v := raw.(type) {
	case string:
		if strings.TrimSpace(v) == "" {
			return []string{}, nil
		}
		out := strings.Split(v, ",")
		for i, s := range out {
			out[i] = strings.TrimSpace(s)
		}
		return out, nil
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errors.New("not a string")
			}
			out[i] = s
		}
		return out, nil
	}
	return nil, errors.New("not a list")
}

// tokens parses a list of tokens, or the JSON of one. Its errors don't contain
// values: a field by a wrong name may have the token itself.
func tokens(raw any) ([]Token, error) {
	const form = "must be a list of {name: …, sha256: …, role: read or write, events: true or false}"
	if text, ok := raw.(string); ok {
		raw = []any{}
		if strings.TrimSpace(text) != "" {
			var list []any
			if json.Unmarshal([]byte(text), &list) != nil {
				return nil, errors.New(form + "; from the environment or --set: as JSON")
			}
			raw = list
		}
	}
	list, ok := raw.([]any)
	if !ok {
		return nil, errors.New(form)
	}
	out := make([]Token, 0, len(list))
	for i, one := range list {
		fields, ok := one.(map[string]any)
		if !ok {
			return nil, errors.New(form)
		}
		var t Token
		at := map[string]*string{"name": &t.Name, "sha256": &t.SHA256, "role": &t.Role}
		for name, v := range fields {
			if name == "events" {
				if t.Events, ok = v.(bool); !ok {
					return nil, fmt.Errorf("[%d].events must be true or false", i)
				}
				continue
			}
			p, ok := at[name]
			if !ok {
				return nil, fmt.Errorf("[%d]: unknown key %s; known are name, sha256, role, events", i, quotedWord(name))
			}
			s, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("[%d].%s must be a string: put it in quotes", i, name)
			}
			*p = s
		}
		t.SHA256 = bareHash(t.SHA256)
		out = append(out, t)
	}
	return out, nil
}

// bareHash returns a hash without what sha256sum prints behind it, "  -" for its
// standard input, and without space around it.
func bareHash(text string) string {
	hash := strings.TrimSpace(text)
	if before, ok := strings.CutSuffix(hash, "-"); ok {
		hash = strings.TrimRight(before, " *")
	}
	return hash
}

// canonical converts values that may be in any case to the one that the rest of
// the program compares with.
func (c *Config) canonical() {
	for _, p := range []*string{&c.Ingest.Start, &c.Ingest.Protocol, &c.Endpoints.Store} {
		*p = strings.ToLower(*p)
	}
	c.Ingest.SASL.Mechanism = strings.ToUpper(c.Ingest.SASL.Mechanism)
	c.API.Tokens = slices.Clone(c.API.Tokens)
	for i := range c.API.Tokens {
		t := &c.API.Tokens[i]
		t.SHA256, t.Role = strings.ToLower(t.SHA256), strings.ToLower(t.Role)
	}
}
