package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Hosts are where endpoints may be. Whoever may write endpoints could otherwise
// use this process to look around in its own network.
type Hosts struct {
	allow, deny rules
	loopback    bool // allowed without being listed
}

// rules are patterns of names, and networks.
type rules struct {
	names    []string // lower case; "*.domain" is all below it
	networks []netip.Prefix
}

// denied are the networks that no endpoint is in, unless they are listed under
// endpoints.hosts.allow: this machine itself, and what only a machine's own
// neighbours may ask.
var denied = []struct {
	network netip.Prefix
	what    string
}{
	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("::1/128"), loopback},
	{netip.MustParsePrefix("0.0.0.0/8"), "this machine"},
	{netip.MustParsePrefix("::/128"), "this machine"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, such as a cloud's metadata"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("168.63.129.16/32"), "Azure's own, for its machines"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "a cloud's metadata"},
	{netip.MustParsePrefix("100.100.100.200/32"), "a cloud's metadata"},
}

const loopback = "loopback"

// nat64 is what an IPv4 address is behind where a network has IPv6 alone (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// The keys that errors name.
const (
	allowKey = "endpoints.hosts.allow"
	denyKey  = "endpoints.hosts.deny"
)

// ParseHosts returns the hosts of two lists of names, of names such as *.domain for
// all that is below it, of addresses and of networks. allowLoopback allows this
// machine's own addresses without their being listed.
func ParseHosts(allow, deny []string, allowLoopback bool) (*Hosts, error) {
	h := &Hosts{loopback: allowLoopback}
	return h, errors.Join(h.allow.add(allowKey, allow), h.deny.add(denyKey, deny))
}

func (r *rules) add(key string, list []string) error {
	for i, s := range list {
		name, network, err := parseRule(s)
		switch {
		case err != nil:
			return fmt.Errorf("%s[%d] %w", key, i, err)
		case name != "":
			r.names = append(r.names, name)
		default:
			r.networks = append(r.networks, network)
		}
	}
	return nil
}

// CheckRule returns an error unless s can be in a list of ParseHosts.
func CheckRule(s string) error {
	_, _, err := parseRule(s)
	return err
}

func parseRule(s string) (name string, network netip.Prefix, err error) {
	if network, err := netip.ParsePrefix(s); err == nil {
		if a := network.Addr(); a.Is4In6() && network.Bits() >= 96 { // what is compared is IPv4 then
			network = netip.PrefixFrom(a.Unmap(), network.Bits()-96)
		}
		return "", network.Masked(), nil
	}
	if address, err := netip.ParseAddr(s); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return "", netip.PrefixFrom(address, address.BitLen()), nil
	}
	name = canonical(s)
	labels := strings.Split(strings.TrimPrefix(name, "*."), ".")
	ok := !slices.ContainsFunc(labels, func(label string) bool {
		return label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
	})
	if !ok || endsInNumber(name) { // the latter was meant to be an address
		return "", netip.Prefix{}, errors.New("must be a host's name, *.domain, an address such as 10.1.2.3 or a network such as 10.0.0.0/8")
	}
	return name, netip.Prefix{}, nil
}

// endsInNumber reports whether a canonical name is an address in one of the old
// notations, such as 127.1 or 0x7f000001, which some resolvers know: no domain of
// the highest level is a number.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// canonical returns a name as it is compared.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// has returns the pattern that matches a name, or "".
func (r *rules) has(name string) string {
	name = canonical(name)
	for _, pattern := range r.names {
		if domain, below := strings.CutPrefix(pattern, "*"); pattern == name || below && strings.HasSuffix(name, domain) {
			return pattern
		}
	}
	return ""
}

// contains returns the network that one of the addresses is in, or "".
func (r *rules) contains(addresses []netip.Addr) string {
	for _, network := range r.networks {
		if slices.ContainsFunc(addresses, network.Contains) {
			return network.String()
		}
	}
	return ""
}

// Check returns an error if an endpoint can't be at host or host:port, as far as
// that can be told without resolving a name.
func (h *Hosts) Check(host string) error { return h.checkName(hostOf(host)) }

// checkName checks a host that is not resolved yet, and all of one that is an address.
func (h *Hosts) checkName(host string) error {
	if address, err := netip.ParseAddr(host); err == nil {
		return h.checkAddress(host, address)
	}
	if endsInNumber(canonical(host)) { // who resolves it may be a proxy, which isn't checked
		return fmt.Errorf("%s is not allowed: write an address as 10.1.2.3", host)
	}
	if rule := h.deny.has(host); rule != "" {
		return fmt.Errorf("%s is not allowed: %s has %s", host, denyKey, rule)
	}
	if len(h.allow.networks) == 0 && len(h.allow.names) > 0 && h.allow.has(host) == "" {
		return fmt.Errorf("%s is not allowed: it is not among %s", host, allowKey)
	}
	return nil
}

// checkBehindProxy checks a host whose name is resolved by somebody else.
func (h *Hosts) checkBehindProxy(host string) error {
	if err := h.checkName(host); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(host); err == nil || len(h.allow.names)+len(h.allow.networks) == 0 || h.allow.has(host) != "" {
		return nil
	}
	return fmt.Errorf("%s is not allowed: it is behind a proxy, which resolves its name, and %s does not have that", host, allowKey)
}

// checkResolved checks the address, with its port, that a host has.
func (h *Hosts) checkResolved(host, resolved string) error {
	address, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	return h.checkAddress(host, address.Addr())
}

func (h *Hosts) checkAddress(host string, address netip.Addr) error {
	address = address.WithZone("").Unmap()
	addresses := []netip.Addr{address}
	if nat64.Contains(address) {
		bytes := address.As16()
		addresses = append(addresses, netip.AddrFrom4([4]byte(bytes[12:])))
	}
	at := ""
	if host != address.String() {
		at = fmt.Sprintf(" at %s", address)
	}
	if rule := h.deny.contains(addresses); rule != "" {
		return fmt.Errorf("%s%s is not allowed: %s has %s", host, at, denyKey, rule)
	}
	if h.allow.contains(addresses) != "" {
		return nil
	}
	for _, d := range denied {
		if slices.ContainsFunc(addresses, d.network.Contains) && !(h.loopback && d.what == loopback) {
			return fmt.Errorf("%s%s is not allowed: %s is %s, and not among %s", host, at, d.network, d.what, allowKey)
		}
	}
	if len(h.allow.names)+len(h.allow.networks) > 0 && h.allow.has(host) == "" {
		return fmt.Errorf("%s%s is not allowed: neither is among %s", host, at, allowKey)
	}
	return nil
}
