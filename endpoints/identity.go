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

// checkIdentityHost adds a violation unless the endpoint's host is allowed to
// receive this process's token. A user who may write endpoints must not be able to
// have the token sent to a host of his own; an endpoint's key he knows anyway.
//
// Another service's domain isn't allowed either: Azure Relay is below
// servicebus.windows.net, too, and forwards an HTTP request with its token to any
// program that listens there.
func (e Endpoint) checkIdentityHost(v *ValidationErrors, o Options) {
	rules, host := e.Type.rules(), e.Host()
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
	v.add(e.hostField(), "identityBased sends this process's own token, and only to hosts under "+strings.Join(domains, ", ")+
		"; the operator can allow others with endpoints.identityDomains")
}
