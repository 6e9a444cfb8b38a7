package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Change is a key whose value is not the default.
type Change struct{ Key, Value string }

// Changes returns what differs from the default configuration, in the order of the
// keys. Secrets are masked, and of a token only its name and its rights are there.
func (c Config) Changes() (changes []Change) {
	is, was := reflect.ValueOf(c), reflect.ValueOf(Default())
	for _, k := range keys {
		value := is.FieldByIndex(k.field)
		if reflect.DeepEqual(value.Interface(), was.FieldByIndex(k.field).Interface()) || value.Kind() == reflect.Slice && value.Len() == 0 {
			continue
		}
		changes = append(changes, Change{k.path, printed(value.Interface())})
	}
	return changes
}

func printed(value any) string {
	switch v := value.(type) {
	case []string:
		return strings.Join(v, ",")
	case []Token:
		names := make([]string, len(v))
		for i, t := range v {
			names[i] = t.Name + ":" + t.Role
			if t.Events {
				names[i] += "+events"
			}
		}
		return strings.Join(names, ",")
	}
	return fmt.Sprint(value)
}
