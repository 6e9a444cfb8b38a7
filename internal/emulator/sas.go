package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Reasons for a 401, in the services' words where known.
var (
	errTokenMalformed = errors.New("InvalidSignature: The token is malformed")
	errTokenSignature = errors.New("InvalidSignature: The token has an invalid signature")
	errTokenExpired   = errors.New("ExpiredToken: The token is expired")
	errTokenAudience  = errors.New("InvalidAudience: The token's resource doesn't cover the audience")
	errTokenIssuer    = errors.New("InvalidIssuer: The token was not issued for this namespace")
)

// verifySAS checks a shared access signature for an audience and returns the key
// that signed it and its expiry.
func verifySAS(token, audience string, keys KeyPair, now time.Time) (Key, time.Time, error) {
	rest, ok := strings.CutPrefix(token, "SharedAccessSignature ")
	if !ok {
		return 0, time.Time{}, errTokenMalformed
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, "&") {
		k, v, _ := strings.Cut(part, "=")
		fields[k] = v
	}
	resource, rerr := url.QueryUnescape(fields["sr"])
	sig, serr := url.QueryUnescape(fields["sig"])
	policy, perr := url.QueryUnescape(fields["skn"])
	expiry, eerr := strconv.ParseInt(fields["se"], 10, 64)
	if resource == "" || errors.Join(rerr, serr, perr, eerr) != nil {
		return 0, time.Time{}, errTokenMalformed
	}
	if policy != keys.Policy {
		return 0, time.Time{}, errTokenSignature
	}
	// The signature is of the resource as it is encoded in the token.
	signed := fields["sr"] + "\n" + fields["se"]
	k, ok := keys.find(func(key string) bool { return signs([]byte(key), signed, sig) })
	expires := time.Unix(expiry, 0)
	switch {
	case !ok:
		return 0, time.Time{}, errTokenSignature
	case !now.Before(expires):
		return 0, time.Time{}, errTokenExpired
	case !covers(resource, audience):
		return 0, time.Time{}, errTokenAudience
	}
	return k, expires, nil
}

// find returns the key for which ok returns true.
func (p KeyPair) find(ok func(key string) bool) (Key, bool) {
	for _, k := range []Key{Primary, Secondary} {
		if ok(p.Of(k)) {
			return k, true
		}
	}
	return 0, false
}

// signs reports whether sig is text's signature with key.
func signs(key []byte, text, sig string) bool {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return hmac.Equal([]byte(base64.StdEncoding.EncodeToString(h.Sum(nil))), []byte(sig))
}

// covers reports whether a token for resource is valid for audience: the same
// host, and the same path or one above it. It ignores scheme and case.
func covers(resource, audience string) bool {
	r, a := withoutScheme(resource), withoutScheme(audience)
	return a == r || strings.HasPrefix(a, r+"/")
}

func withoutScheme(uri string) string {
	if _, rest, ok := strings.Cut(uri, "://"); ok {
		uri = rest
	}
	return strings.Trim(strings.ToLower(uri), "/")
}

// audiencePath returns the entity path of an audience, in its own spelling.
func audiencePath(audience string) string {
	if _, rest, ok := strings.Cut(audience, "://"); ok {
		audience = rest
	}
	_, path, _ := strings.Cut(audience, "/")
	return strings.Trim(path, "/")
}

// verifyGridToken checks an aeg-sas-token: r=resource&e=expiry&s=signature, signed
// with the key's decoded bytes.
func verifyGridToken(token string, keys KeyPair, now time.Time) (Key, error) {
	signed, sig, ok := strings.Cut(token, "&s=")
	if !ok {
		return 0, errTokenMalformed
	}
	values, err := url.ParseQuery(signed)
	if err != nil || values.Get("r") == "" {
		return 0, errTokenMalformed
	}
	if sig, err = url.QueryUnescape(sig); err != nil {
		return 0, errTokenMalformed
	}
	k, ok := keys.find(func(key string) bool {
		decoded, err := base64.StdEncoding.DecodeString(key)
		return err == nil && signs(decoded, signed, sig)
	})
	if !ok {
		return 0, errTokenSignature
	}
	for _, layout := range []string{"1/2/2006 3:04:05 PM", time.RFC3339, "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, values.Get("e")); err == nil {
			if now.Before(t) {
				return k, nil
			}
			return 0, errTokenExpired
		}
	}
	return 0, errTokenMalformed
}

// matchKey returns which of the pair a key is.
func matchKey(key string, keys KeyPair) (Key, bool) {
	return keys.find(func(one string) bool { return subtle.ConstantTimeCompare([]byte(key), []byte(one)) == 1 })
}
