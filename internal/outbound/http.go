package outbound

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// maxHeaders bounds the headers of a reply, all of its 1xx replies included. Those
// of Azure's services have 1 to 4 KiB; net/http's own limit is 10 MB.
const maxHeaders = 32 << 10

// Transport returns the transport to one endpoint's host, over TLS. dialTLS, if not
// nil, takes the place of DialTLS.
//
// Through a proxy of the environment the host is checked by its name alone: the
// proxy resolves it, and what it may connect to is its own to say. The proxy
// itself may be anywhere. The root certificates are those of this moment then.
func (d *Dialer) Transport(host string, dialTLS func(ctx context.Context, address string) (net.Conn, error)) *http.Transport {
	t := d.transport()
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	if err == nil && proxy != nil && d != nil && d.hosts != nil {
		err = d.hosts.checkBehindProxy(hostOf(host))
	}
	t.Proxy = func(*http.Request) (*url.URL, error) { return proxy, err }
	if proxy != nil {
		t.TLSClientConfig = d.TLS("") // the transport sets the name
		return t
	}
	if dialTLS == nil {
		dialTLS = d.DialTLS
	}
	t.DialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) { return dialTLS(ctx, address) }
	return t
}

// TrustedTransport returns a transport to wherever the operator's own settings
// lead, which may be what no endpoint may be at: a pod's identity is served at a
// link-local address. Through a proxy the root certificates are those of this moment.
func (d *Dialer) TrustedTransport() *http.Transport {
	t := d.transport()
	t.TLSClientConfig = d.TLS("")
	t.DialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		conn, err := dial(ctx, address, nil)
		if err != nil {
			return nil, err
		}
		return d.secure(ctx, conn, address)
	}
	return t
}

func (d *Dialer) transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = t.MaxIdleConns
	t.MaxResponseHeaderBytes = maxHeaders
	// A reply is never asked for compressed, nor unpacked if it is: a few bytes
	// become gigabytes.
	t.DisableCompression = true
	t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address, nil) }
	// HTTP/2 would send all requests to a host over one connection.
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

// Client makes requests and reads no more than limit bytes of a reply's body. What
// is left of it is not read but closed with its connection. It follows no
// redirection: that would send a key, a token or what stands for one to another
// host, and none of the services redirects. A proxy that wants a log-in does.
//
// It is an azcore policy.Transporter: azcore reads the body of each error whole,
// and so does azidentity with all of them.
type Client struct {
	http  http.Client
	limit int64
	cut   bool
}

// NewClient returns a client. With cut, a longer body ends at the limit; otherwise
// that is an error.
func NewClient(transport http.RoundTripper, limit int64, cut bool) *Client {
	return &Client{http: http.Client{Transport: transport, CheckRedirect: noRedirect}, limit: limit, cut: cut}
}

// Do makes a request.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	response, err := c.http.Do(r)
	if err == nil && response.Body != http.NoBody {
		response.Body = &body{ReadCloser: response.Body, client: c, left: c.limit}
	}
	return response, err
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// body is a reply's body of bounded length.
type body struct {
	io.ReadCloser
	client *Client
	left   int64 // negative: the body is longer
}

func (b *body) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, b.end()
	}
	// One byte more than may be used: it says whether the body ends there, and the
	// end that is read lets the connection be used again.
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return n - 1, b.end()
	}
	return n, err
}

func (b *body) end() error {
	if b.client.cut {
		return io.EOF
	}
	return fmt.Errorf("the reply is longer than %d bytes", b.client.limit)
}

// hostOf returns the name in host or host:port.
func hostOf(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		return host
	}
	return s
}
