package endpoints

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ConnectionString is a parsed connection string of Event Hubs or Service Bus.
// Every way of printing one masks its key and signature.
type ConnectionString struct {
	// Endpoint is the address as given, such as sb://ns.servicebus.windows.net/.
	Endpoint string
	// Host is the namespace, in lower case, with its port if one is given:
	// what the SDKs call the fully qualified namespace.
	Host string
	// SharedAccessKeyName and SharedAccessKey come together, or
	// SharedAccessSignature in their place.
	SharedAccessKeyName   string
	SharedAccessKey       string
	SharedAccessSignature string
	// EntityPath is the hub or topic; optional.
	EntityPath string
	// UseDevelopmentEmulator makes the SDKs speak plain text, whatever the
	// host: see Options.AllowDevelopmentEmulator.
	UseDevelopmentEmulator bool

	faultyEntity bool // EntityPath is given, and is not a valid name
}

// legacyParts are settings of the older .NET libraries that connection strings
// still carry. They are ignored, as the SDKs ignore them.
var legacyParts = map[string]bool{
	"transporttype":    true,
	"operationtimeout": true,
}

// ParseConnectionString parses a connection string in the form that the portal
// shows, and with white space around its parts. It accepts nothing else that the
// SDKs reject, and is stricter where they ignore a mistake (an unknown or repeated
// part).
//
// An error names everything that is wrong, and never quotes the input: with a
// separator missing or two parts swapped, any piece of it can be the key. Parts
// are named by their position.
func ParseConnectionString(s string) (ConnectionString, error) {
	return joined(parseKeyed(s))
}

// ParseNamespace parses the connection string of an identityBased endpoint, which
// has no keys: Endpoint=sb://NAMESPACE/[;EntityPath=…].
func ParseNamespace(s string) (ConnectionString, error) {
	return joined(parseKeyless(s))
}

func parseKeyed(s string) (ConnectionString, []string) {
	cs, given, faults := parseParts(s)
	return cs, append(faults, missingParts(given)...)
}

func parseKeyless(s string) (ConnectionString, []string) {
	cs, given, faults := parseParts(s)
	if !given["endpoint"] {
		faults = append(faults, "Endpoint is missing")
	}
	if given["sharedaccesskeyname"] || given["sharedaccesskey"] || given["sharedaccesssignature"] {
		faults = append(faults, "SharedAccessKeyName, SharedAccessKey and SharedAccessSignature have no place beside identityBased")
	}
	if cs.UseDevelopmentEmulator {
		faults = append(faults, "UseDevelopmentEmulator has no place beside identityBased: the token would travel in the clear")
	}
	return cs, faults
}

func joined(cs ConnectionString, faults []string) (ConnectionString, error) {
	if len(faults) > 0 {
		return ConnectionString{}, errors.New(strings.Join(faults, "; "))
	}
	return cs, nil
}

// parseParts returns the parts that are valid, the names of all that are given,
// in lower case, and what is wrong.
func parseParts(s string) (cs ConnectionString, given map[string]bool, faults []string) {
	given = map[string]bool{}
	fault := func(format string, args ...any) {
		// A string of ; and = alone has thousands.
		if len(faults) < maxViolations {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	for i, part := range strings.Split(tidy(s), ";") {
		if part == "" {
			continue // the usual ; at the end
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			fault("part %d is not of the form Name=value", i+1)
			continue
		}
		lower := strings.ToLower(name)
		if legacyParts[lower] {
			continue
		}
		if given[lower] {
			fault("part %d repeats a name that was given before", i+1)
			continue
		}
		given[lower] = true
		if err := cs.set(lower, value); err != nil {
			fault("part %d: %v", i+1, err)
		}
	}
	cs.faultyEntity = given["entitypath"] && cs.EntityPath == ""
	return cs, given, faults
}

// set sets one part. Errors are constants, since any part can be the key.
func (cs *ConnectionString) set(lowerName, value string) error {
	switch lowerName {
	case "endpoint":
		host, ok := strings.CutPrefix(value, "sb://")
		if !ok {
			return errors.New("Endpoint must start with sb://")
		}
		host = strings.ToLower(strings.TrimSuffix(host, "/"))
		if err := checkHost(host); err != nil {
			return fmt.Errorf("Endpoint must be sb://host/ or sb://host:port/: %w", err)
		}
		cs.Endpoint, cs.Host = value, host
	case "sharedaccesskeyname":
		// A key usually ends in =, a key's name never does: this detects the
		// two swapped. The name is printed, so it must not be the key.
		if value == "" || strings.ContainsFunc(value, isSpaceOrHidden) || strings.Contains(value, "=") {
			return errors.New("SharedAccessKeyName must be a policy's name, without spaces or =")
		}
		cs.SharedAccessKeyName = value
	case "sharedaccesskey":
		if err := checkKey(value); err != nil {
			return fmt.Errorf("SharedAccessKey %w", err)
		}
		cs.SharedAccessKey = value
	case "sharedaccesssignature":
		if strings.TrimSpace(value) == "" || strings.ContainsFunc(value, isHidden) {
			return errors.New("SharedAccessSignature must be a signature")
		}
		cs.SharedAccessSignature = value
	case "entitypath":
		if err := checkEntity(value); err != nil {
			return fmt.Errorf("EntityPath %w", err)
		}
		cs.EntityPath = value
	case "usedevelopmentemulator":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("UseDevelopmentEmulator must be true or false")
		}
		cs.UseDevelopmentEmulator = b
	default:
		if strings.ContainsFunc(lowerName, isSpaceOrHidden) {
			return errors.New("its name has a space or an invisible character in it")
		}
		return errors.New("unknown name; known are Endpoint, SharedAccessKeyName, SharedAccessKey, " +
			"SharedAccessSignature, EntityPath and UseDevelopmentEmulator")
	}
	return nil
}

// missingParts returns what is missing, among the parts that are given.
func missingParts(given map[string]bool) (missing []string) {
	if !given["endpoint"] {
		missing = append(missing, "Endpoint is missing")
	}
	name, key := given["sharedaccesskeyname"], given["sharedaccesskey"]
	switch {
	case given["sharedaccesssignature"]:
		if name || key {
			missing = append(missing, "SharedAccessSignature takes the place of SharedAccessKeyName and SharedAccessKey: give one or the other")
		}
	case !name && !key:
		missing = append(missing, "SharedAccessKeyName and SharedAccessKey are missing")
	case !name:
		missing = append(missing, "SharedAccessKeyName is missing")
	case !key:
		missing = append(missing, "SharedAccessKey is missing")
	}
	return missing
}

// checkHost returns an error unless s is host or host:port. It doesn't quote s.
func checkHost(s string) error {
	host := s
	if strings.HasPrefix(s, "[") || strings.Contains(s, ":") {
		h, port, err := net.SplitHostPort(s)
		if err != nil {
			return errors.New("it is not of the form host or host:port")
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return errors.New("its port must be a number from 1 to 65535")
		}
		host = h
		if strings.HasPrefix(s, "[") {
			if net.ParseIP(host) == nil {
				return errors.New("what is in [ ] must be an IPv6 address")
			}
			return nil
		}
	}
	if host == "" {
		return errors.New("the host is empty")
	}
	if len(host) > 253 {
		return errors.New("the host is longer than 253 characters")
	}
	for _, label := range strings.Split(host, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("each part of the host between dots must have 1 to 63 characters")
		}
	}
	// The underscore isn't allowed in DNS names, but the names of services in a
	// compose file and the documented placeholders have it.
	if strings.ContainsFunc(host, func(r rune) bool { return !isAlnum(r) && r != '-' && r != '.' && r != '_' }) {
		return errors.New("a host has only letters, digits, dots and hyphens")
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !isAlnum(rune(label[0])) || !isAlnum(rune(label[len(label)-1])) {
			return errors.New("each part of the host between dots must start and end with a letter or a digit")
		}
	}
	// A host that ends in a number is an address (as in WHATWG's URL standard).
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" && net.ParseIP(host) == nil {
		return errors.New("a host that ends in a number must be an IPv4 address")
	}
	return nil
}

// checkEntity returns an error unless s can be the name of a hub or of a Service
// Bus topic. The service has further rules of its own.
func checkEntity(s string) error {
	switch {
	case s == "":
		return errors.New("must not be empty")
	case len(s) > 260:
		return errors.New("must have at most 260 characters")
	case strings.ContainsFunc(s, isSpaceOrHidden):
		return errors.New("must have no spaces and no invisible characters")
	case strings.ContainsAny(s, `?#@\*=;:`):
		return errors.New("must have none of ? # @ \\ * = ; : in it")
	case strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/"):
		return errors.New("must neither start nor end with /")
	}
	return nil
}

// checkKey returns an error unless s is base64, standard or URL-safe: Event Grid
// issues both.
func checkKey(s string) error {
	switch {
	case s == "":
		return errors.New("must not be empty")
	case s == mask:
		return errors.New("is masked: give the key itself in place of " + mask)
	case strings.ContainsFunc(s, isSpaceOrHidden):
		return errors.New("must not have spaces")
	case strings.ContainsFunc(s, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("+/=-_", r) }):
		return errors.New("must be a key: letters, digits and + / = - _ only")
	case strings.Contains(strings.TrimRight(s, "="), "="):
		return errors.New("must be a key, which has = at its end only")
	}
	return nil
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// isHidden reports whether a character can't be seen, or steers what shows it:
// controls, formats such as the zero-width space and the bidirectional overrides,
// separators but the plain space, what no text is, and what stands for a character
// that couldn't be read. With them two names look alike, and a terminal obeys.
func isHidden(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }

// tidy returns a connection string without the white space around its parts, their
// names and their values: people paste it over several lines, other SDKs take it,
// and Go's do not.
func tidy(s string) string {
	if !strings.ContainsFunc(s, unicode.IsSpace) {
		return s
	}
	parts := strings.Split(s, ";")
	for i, part := range parts {
		name, value, ok := strings.Cut(part, "=")
		parts[i] = strings.TrimSpace(name)
		if ok {
			parts[i] += "=" + strings.TrimSpace(value)
		}
	}
	return strings.Join(parts, ";")
}
