package endpoints

import (
	"net"
	"slices"
	"strings"
)

// azureDomains are the domains of Azure's clouds that Event Hubs, Service Bus
// and Event Grid live under.
var azureDomains = []string{
	"servicebus.windows.net", "eventgrid.azure.net",
	"servicebus.usgovcloudapi.net", "eventgrid.azure.us",
	"servicebus.chinacloudapi.cn", "eventgrid.azure.cn",
}

// checkIdentityHost keeps this process's token from going anywhere but to
// Azure. An endpoint's key is its own, and whoever writes the endpoint knows
// it; the token is the process's, and whoever may write endpoints must not be
// able to have it sent to a host of theirs.
//
// A host of another service isn't good enough: below servicebus.windows.net
// are Azure Relay's, too, which pass an HTTP request on, its token with it, to
// whatever program anybody has listen there.
func (e Endpoint) checkIdentityHost(v *ValidationErrors, o Options) {
	rules := e.Type.rules()
	host, field := e.Host(), "connectionString"
	if !rules.amqp {
		field = "path"
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	domains := o.IdentityDomains
	if domains == nil {
		domains = azureDomains
	}
	domains = slices.DeleteFunc(slices.Clone(domains), func(d string) bool { return strings.HasPrefix(d, rules.others) })
	if host == "" || slices.ContainsFunc(domains, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) }) {
		return
	}
	v.add(field, "identityBased sends this process's own token, and only to hosts under "+strings.Join(domains, ", ")+
		"; the operator can allow others with endpoints.identityDomains")
}
