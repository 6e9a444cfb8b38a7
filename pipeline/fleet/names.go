package fleet

import (
	"fmt"
	"slices"
	"strings"
)

// nameOf returns the name of a copy: its instance, or its id where several have that.
func (r *Report) nameOf(c *Copy) string {
	for i := range r.Copies {
		if o := &r.Copies[i]; o.Instance == c.Instance && o.ID != c.ID {
			return c.ID
		}
	}
	return c.Instance
}

// describe names an endpoint by all that a reader may know it by.
func describe(e *EndpointSums) string {
	where := e.Path
	if host := e.Host; host != e.Path { // as Event Grid's is
		where = strings.Trim(host+"/"+e.Path, "/")
	}
	where = strings.TrimSpace(e.Type + " " + where)
	switch name := e.Name; {
	case where == "":
		return "An endpoint that this copy doesn't have (" + e.ID + ")"
	case name != "":
		return name + " (" + where + ")"
	default:
		return where
	}
}

func numbers(list []int32) string {
	text := strings.ReplaceAll(strings.Trim(fmt.Sprint(list[:min(len(list), 20)]), "[]"), " ", ", ")
	if len(list) > 20 {
		text += ", …"
	}
	return text
}

func sortedKeys(m map[string][]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
