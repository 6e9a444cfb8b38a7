package untrusted_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"twinegress/internal/untrusted"
)

const key = "Zm9v+YmFy/cXV4LWtleS1vZi1hbi1lbmRwb2ludA=="

func TestText(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", untrusted.MaxLength)
	tests := map[string]struct{ text, want string }{
		"plain":                      {"the entity was not found", "the entity was not found"},
		"letters of other languages": {"Größe 大きさ", "Größe 大きさ"},
		"a real replacement char":    {"\uFFFD", "\uFFFD"},
		"escape sequences":           {"\x1b]0;owned\x07\x1b[2J", `\u001b]0;owned\u0007\u001b[2J`},
		"C1, bidi, separators":       {"a\u009b31m\u202eb\u200b\u2028\ufeff", `a\u009b31m\u202eb\u200b\u2028\ufeff`},
		"lines":                      {"a\r\nb\tc\x00", `a\u000d\u000ab\u0009c\u0000`},
		"beyond the first plane":     {"\U000e0001", `\U000e0001`},
		"not UTF-8":                  {"a\xff\xc3", `a\xff\xc3`},
		"as long as is kept":         {long, long},
		"a character longer":         {long + "x", long + "…"},
		"long, all controls":         {strings.Repeat("\x1b", 5000), strings.Repeat(`\u001b`, untrusted.MaxLength/6) + "…"},
		"20 MB":                      {strings.Repeat("é", 10<<20), strings.Repeat("é", untrusted.MaxLength) + "…"},
		"a JWT":                      {"token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln is bad", "token *** is bad"},
		"a key by its name":          {"Endpoint=sb://x/;SharedAccessKey=abcdefgh;EntityPath=h", "Endpoint=sb://x/;SharedAccessKey=***;EntityPath=h"},
		"a signature":                {"SharedAccessSignature sr=x&sig=abc%2Bdef%3D&se=1", "SharedAccessSignature sr=x&sig=***&se=1"},
		"a header":                   {"aeg-sas-key: abcdefgh,", "aeg-sas-key: ***,"},
	}
	for title, test := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			if got := untrusted.Text(test.text); got != test.want {
				t.Errorf("%q becomes %.100q, want %.100q", short(test.text), got, test.want)
			}
		})
	}
}

func short(s string) string { return s[:min(len(s), 60)] }

// A peer that was shown a key may repeat it in any of these forms.
func TestKnownSecretIsMasked(t *testing.T) {
	t.Parallel()
	inJSON, _ := json.Marshal(key)
	forms := map[string]string{
		"as it is":              key,
		"without its padding":   strings.TrimRight(key, "="),
		"in a query":            url.QueryEscape(key),
		"in a path":             url.PathEscape(key),
		"in lower-case escapes": strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(url.QueryEscape(key)),
		"in JSON":               string(inJSON),
		"in JSON with slashes":  strings.ReplaceAll(key, "/", `\/`),
		"in JSON of .NET":       strings.ReplaceAll(key, "+", `\u002B`),
		"in HTML of .NET":       strings.ReplaceAll(key, "+", "&#x2B;"),
		"in HTML":               strings.ReplaceAll(key, "+", "&#43;"),
	}
	for i := range 3 {
		text := strings.Repeat("u", i) + key + ":"
		forms["in base64 "+text[:3]] = base64.StdEncoding.EncodeToString([]byte(text))
		forms["in base64url "+text[:3]] = base64.URLEncoding.EncodeToString([]byte(text))
	}
	mask := untrusted.NewMasker("", "abc", key)
	for title, form := range forms {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			got := mask.Text("no key " + form + " here, abc")
			if leaks(got) || !strings.Contains(got, untrusted.Masked) || !strings.HasPrefix(got, "no key ") || !strings.HasSuffix(got, " here, abc") {
				t.Errorf("%s becomes %q", form, got)
			}
		})
	}
}

// leaks reports whether a text has enough of the key, or of what base64 makes of
// it, to be of use.
func leaks(text string) bool {
	for i := 0; i+16 <= len(key); i++ {
		if strings.Contains(text, key[i:i+16]) {
			return true
		}
	}
	return false
}

// However much of a text is secrets, and wherever it is cut, no part of one shows.
func TestSecretAtTheCut(t *testing.T) {
	t.Parallel()
	mask := untrusted.NewMasker(key)
	for shift := range 2 * len(key) {
		text := strings.Repeat("x", shift) + strings.Repeat(key, 400)
		if got := mask.Text(text); leaks(got) {
			t.Fatalf("with %d before it: %q", shift, got)
		}
	}
}

// What is escaped ends in a letter or a digit, which may be what a secret lacks.
func TestSecretBehindAnEscape(t *testing.T) {
	t.Parallel()
	const secret = "a2V5LW9mLXRoZS10b3BpYw"
	if got := untrusted.NewMasker(secret).Text("\xba" + secret[1:] + "."); got != `\xb`+untrusted.Masked+"." {
		t.Errorf("%q", got)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a\x1b[2Jb", "\xff\xfe", key, strings.Repeat("é", 5000), "sig=" + key} {
		f.Add(s, 3)
	}
	mask := untrusted.NewMasker(key)
	f.Fuzz(func(t *testing.T, text string, at int) {
		if leaks(text) {
			return // a part of the key alone is nobody's secret
		}
		if at >= 0 && at <= len(text) {
			text = text[:at] + key + text[at:]
		}
		got := mask.Text(text)
		if leaks(got) {
			t.Fatalf("the key shows: %q", got)
		}
		if n := utf8.RuneCountInString(got); n > untrusted.MaxLength+1 {
			t.Fatalf("%d characters", n)
		}
		for _, r := range got {
			if r == utf8.RuneError || unicode.IsPrint(r) {
				continue
			}
			t.Fatalf("%q has %U", got, r)
		}
	})
}
