package untrusted

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What is taken for free of secrets without the expression is so for it, too.
func TestShapesAreNotMissed(t *testing.T) {
	pieces := append([]string{
		"eyJ", "abcdefgh1", ".", "=", ":", "%3d", "%3D", " ", "\t", "\n", "\f", "\r", "\v", `"`, "x", "é", "\u017f", "\u212a", "ſig=", "SIG", "Password", "acceſsKEY", "Shared",
	}, shapeNames...)
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 12).Draw(t, "text"), "")
		if !mayMatchShapes(text) && shapes.MatchString(text) {
			t.Fatalf("%q has a secret", text)
		}
	})
	for _, text := range []string{"", "a design", "significant: yes", "passwords", "a signal"} {
		if mayMatchShapes(text) {
			t.Errorf("the expression looks at %q", text)
		}
	}
}
