package endpoints

import (
	"net"
	"slices"
	"strings"
)

// AzureDomains are the domains of Azure's clouds that Event Hubs, Service Bus
// and Event Grid live under.
func AzureDomains() []string {
	return []string{
		"servicebus.windows.net", "eventgrid.azure.net",
		"servicebus.usgovcloudapi.net", "eventgrid.azure.us",
		"servicebus.chinacloudapi.cn", "eventgrid.azure.cn",
	}
}

// checkIdentityHost keeps this process's token from going anywhere but to
// Azure. An endpoint's key is its own, and whoever writes the endpoint knows
// it; the token is the process's, and whoever may write endpoints must not be
// able to have it sent to a host of theirs.
//
// Nor is a host of another service's good enough: below servicebus.windows.net
// are Azure Relay's, too, which pass an HTTP request on, its token with it, to
// whatever program anybody has listen there.
func (e Endpoint) checkIdentityHost(v *ValidationErrors, o Options) {
	host, field := e.Host(), "connectionString"
	if e.Type == TypeEventGrid {
		field = "path"
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	domains, others := o.IdentityDomains, "eventgrid."
	if domains == nil {
		domains = AzureDomains()
	}
	if e.Type == TypeEventGrid {
		others = "servicebus."
	}
	domains = slices.DeleteFunc(slices.Clone(domains), func(d string) bool { return strings.HasPrefix(d, others) })
	if host == "" || slices.ContainsFunc(domains, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) }) {
		return
	}
	v.add(field, "identityBased sends this process's own token, and only to hosts under "+strings.Join(domains, ", ")+
		"; the operator can allow others with endpoints.identityDomains")
}
