package sinktest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
	"twinegress/sinks/entra"
)

// sentence is a row of the table of words: a trouble, and how the status reads.
type sentence struct {
	name string
	// amqp and grid are regular expressions that match the whole last error. ENTITY
	// and HOST stand for the endpoint's. "": the protocol doesn't have the trouble,
	// but what is wrong with a certificate reads the same for both.
	amqp, grid string

	fault emulator.Fault
	whole bool
	warm  bool // it comes after a connection was made
	// change changes the endpoint.
	change func(*endpoints.Endpoint)
	// certificate is that of the service's place.
	certificate *x509.Certificate
	plain       bool // its place doesn't speak TLS
	trusts      bool // the certificate
	denied      bool // its address
	identity    bool
	tokens      error
}

const (
	unknownHost = `unreachable: there is no host twins\.invalid\S*: correct the endpoint's host; for a topic or namespace that was deleted or is in another region, take the host that the portal shows \(.*no such host\)`
	refusedHost = `unreachable: HOST refuses connections: nothing listens on that port, or a firewall is in between \(dial tcp .*: connect: connection refused\)`
)

// sentences returns the rows.
func sentences() []sentence {
	in := func(d time.Duration) *x509.Certificate {
		return &x509.Certificate{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(d), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	}
	elsewhere := in(time.Hour)
	elsewhere.IPAddresses, elsewhere.DNSNames = nil, []string{"other.westeurope-1.eventgrid.azure.net"}
	return []sentence{
		{
			name: "unknown entity", fault: emulator.Fault{Refuse: "amqp:not-found"},
			amqp: `unreachable: ENTITY does not exist in the namespace HOST: create it, or correct the endpoint's path \((amqp:not-found|404 Not Found): The messaging entity 'twins' could not be found\.\)`,
			grid: `unreachable: there is no topic at HOST: create it, or correct the endpoint's path to the topic's host, with its region \(HTTP 404 Not Found: .*could not be found.*\)`,
		},
		{
			name: "disabled entity", fault: emulator.Fault{Refuse: "com.microsoft:entity-disabled"},
			amqp: `unreachable: ENTITY is disabled: enable it in the namespace HOST \(com\.microsoft:entity-disabled: Messaging entity 'twins' is currently disabled\.\)`,
		},
		{
			name: "disabled later", fault: emulator.Fault{Refuse: "com.microsoft:entity-disabled"}, warm: true,
			amqp: `unreachable: ENTITY is disabled: enable it in the namespace HOST \(com\.microsoft:entity-disabled: Messaging entity 'twins' is currently disabled\.\)`,
		},
		{
			name: "both keys refused", fault: emulator.Fault{RejectKey: "both"},
			amqp: `unauthorized: both keys are refused: (primary: )?the namespace HOST refuses the key, it may have been regenerated: copy the present one into the endpoint \(401 Unauthorized: .*\)`,
			grid: `unauthorized: both keys are refused: (primary: )?the topic HOST refuses the key, it may have been regenerated: copy the present one into the endpoint \(HTTP 401 Unauthorized: .*\)`,
		},
		{
			name: "no right to send", fault: emulator.Fault{RejectKey: "both"}, warm: true,
			amqp: `unauthorized: both keys are refused: (primary: )?(the key's policy may not send to ENTITY: give it the right Send, or use another policy's key \(amqp:unauthorized-access: .*|the namespace HOST refuses the key, .*)`,
		},
		{
			name: "expired token", fault: emulator.Fault{Refuse: "amqp:unauthorized-access", Description: "ExpiredToken: The token is expired. Expiration time: …"},
			amqp: `unauthorized: both keys are refused: (primary: )?the token for ENTITY has expired: put a new signature into the endpoint or, if it has a key, set the clock of this machine \(amqp:unauthorized-access: ExpiredToken: .*`,
		},
		{
			name: "firewall", fault: emulator.Fault{Refuse: "amqp:unauthorized-access", Description: "Ip has been prevented to connect to the endpoint."},
			amqp: `unauthorized: both keys are refused: (primary: )?the firewall of the namespace HOST doesn't let this machine in: allow its address or network there \(amqp:unauthorized-access: Ip has been prevented.*`,
		},
		{
			name: "identity refused", fault: emulator.Fault{RejectKey: "identity"}, identity: true,
			amqp: `unauthorized: this process's identity may not send to ENTITY: assign it the role of a data sender in the namespace HOST \(401 Unauthorized: .*\)`,
			grid: `unauthorized: this process's identity may not send to HOST: assign it the role EventGrid Data Sender there \(HTTP 401 Unauthorized: .*\)`,
		},
		{
			name: "no token, the secret has expired", identity: true, tokens: errors.New("AADSTS7000222: The provided client secret keys for app 'x' are expired"),
			amqp: `unauthorized: no token from Entra ID: the secret of this process's identity has expired: make a new one for its application, and set it here \(AADSTS7000222: .*\)`,
			grid: `unauthorized: no token from Entra ID: the secret of this process's identity has expired: make a new one for its application, and set it here \(AADSTS7000222: .*\)`,
		},
		{
			name: "throttled", fault: emulator.Fault{Throttle: 1},
			amqp: `throttled: the service throttles, ENTITY gets more than it may take: send less, or add capacity to the namespace HOST \(com\.microsoft:server-busy: .*wait 1 seconds.*\)`,
			grid: `throttled: the service throttles, the topic HOST gets more than it may take: send less, or raise its limit \(HTTP 429 .*\)`,
		},
		{
			name: "quota", fault: emulator.Fault{Refuse: "amqp:resource-limit-exceeded", Description: "The maximum entity size has been reached."},
			amqp: `throttled: a quota of ENTITY is used up: take messages from it, or raise the quota, in the namespace HOST \(amqp:resource-limit-exceeded: The maximum entity size has been reached\.\)`,
		},
		{name: "unknown host", amqp: unknownHost, grid: unknownHost, change: func(e *endpoints.Endpoint) { moveTo(e, "twins.invalid") }},
		{name: "refused", fault: emulator.Fault{Down: true}, whole: true, amqp: refusedHost, grid: refusedHost},
		{
			name: "silent from the start", fault: emulator.Fault{Hang: true}, whole: true,
			amqp: `unreachable: HOST takes connections and doesn't answer: the service hangs, or something in between holds its answers back \(context deadline exceeded\)`,
			grid: `unreachable: HOST (takes connections and doesn't answer: the service hangs, or something in between holds its answers back|doesn't let a connection come about in time: check firewalls, the address and the network in between, or it hangs) \(.*context deadline exceeded\)`,
		},
		{
			name: "never settled", fault: emulator.Fault{NeverSettle: true},
			amqp: `unreachable: ENTITY did not confirm in time what was sent: the service hangs, is overloaded, or something in between holds its answers back \(context deadline exceeded\)`,
			grid: `unreachable: HOST takes connections and doesn't answer: the service hangs, or something in between holds its answers back \(context deadline exceeded\)`,
		},
		{
			name: "released", fault: emulator.Fault{Outcome: emulator.OutcomeReleased},
			amqp: `unreachable: ENTITY takes nothing now: if that goes on, look at its state in the namespace HOST, and at Azure's status \(the service gave the batch back without storing it\)`,
		},
		{
			name: "HTTP 503", fault: emulator.Fault{Status: 503},
			grid: `unreachable: the service failed by itself, at HOST: if that goes on, look at Azure's status \(HTTP 503 .*\)`,
		},
		{
			name: "HTTP 503 with a wait", fault: emulator.Fault{Status: 503, RetryAfter: 1},
			grid: `throttled: HOST is busy and asks to wait: if that goes on, look at Azure's status \(HTTP 503 .*\)`,
		},
		{
			name: "unknown condition", fault: emulator.Fault{Outcome: emulator.OutcomeRejected, Condition: "com.microsoft:something-new", Description: "What nobody knows."},
			amqp: `unreachable: com\.microsoft:something-new: What nobody knows\.`,
		},
		{
			name: "untrusted certificate", certificate: in(time.Hour),
			amqp: `unreachable: the certificate of HOST is from an authority that this process doesn't trust: if a proxy inspects TLS or the service has its own authority, name that in send\.caFile \(TLS handshake: .*certificate signed by unknown authority\)`,
		},
		{
			name: "expired certificate", certificate: in(-time.Hour), trusts: true,
			amqp: `unreachable: the certificate of HOST has expired or is not valid yet: renew it there, or set the clock of this machine \(TLS handshake: .*expired.*\)`,
		},
		{
			name: "another host's certificate", certificate: elsewhere, trusts: true,
			amqp: `unreachable: HOST shows a certificate of other\.westeurope-1\.eventgrid\.azure\.net: it is another service or region than the endpoint's host names, or a proxy answers for it \(TLS handshake: .*\)`,
		},
		{
			name: "no TLS", plain: true,
			amqp: `unreachable: HOST doesn't speak TLS: correct the port of the endpoint's host \(TLS handshake: .*\)`,
		},
		{
			name: "not allowed", denied: true,
			amqp: `unreachable: \S+ is not allowed: endpoints\.hosts\.deny has 127\.0\.0\.0/8`,
			grid: `unreachable: \S+ is not allowed: endpoints\.hosts\.deny has 127\.0\.0\.0/8`,
		},
	}
}

// place returns a listener's address with a certificate, or with none, that trusts
// nobody: it ends every connection after the handshake.
func (row sentence) place(t *testing.T) (address string, certificate *x509.Certificate) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve := func(conn net.Conn) { _, _ = conn.Write([]byte("220 this is mail\r\n")) }
	if row.certificate != nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		row.certificate.SerialNumber, row.certificate.IsCA, row.certificate.BasicConstraintsValid = big.NewInt(1), true, true
		der, err := x509.CreateCertificate(rand.Reader, row.certificate, row.certificate, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if certificate, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
		serve = func(conn net.Conn) { _ = tls.Server(conn, config).HandshakeContext(t.Context()) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String(), certificate
}

// moveTo changes where an endpoint is, over TLS.
func moveTo(e *endpoints.Endpoint, address string) {
	if e.Type == endpoints.TypeEventGrid {
		e.Path = address
		return
	}
	e.ConnectionString = "Endpoint=sb://" + address + "/;SharedAccessKeyName=send;SharedAccessKey=" + keys.Primary
	e.SecondaryConnectionString = ""
}

// RunWords compares what the status says about each trouble with the table: what it
// is and what to do, in words, and the service's own at the end.
func RunWords(t *testing.T, s Service) {
	var tests []subtest
	for _, row := range sentences() {
		want := row.amqp
		if s.isGrid() {
			want = row.grid
		}
		if row.certificate != nil || row.plain {
			want = row.amqp // the same for all
		}
		if want != "" {
			tests = append(tests, subtest{row.name, func(t *testing.T) { row.run(t, s, want) }})
		}
	}
	runParallel(t, tests)
}

func (row sentence) run(t *testing.T, s Service, want string) {
	service := s.start(t, keys, func(c *emulator.Config) {
		c.AMQPTLS = row.identity
		c.BearerToken = bearerToken
	})
	endpoint := s.endpoint(service)
	if row.identity {
		endpoint = s.identityEndpoint(service)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(service.CAPEM())
	if row.certificate != nil || row.plain {
		address, certificate := row.place(t)
		moveTo(&endpoint, address)
		if row.trusts {
			roots.AddCert(certificate)
		}
	}
	if row.change != nil {
		row.change(&endpoint)
	}
	var deny []string
	if row.denied {
		deny = []string{"127.0.0.0/8"}
	}
	hosts, err := outbound.ParseHosts(nil, deny, true)
	if err != nil {
		t.Fatal(err)
	}
	token := &credential{scope: s.scope(), err: row.tokens}
	open := s.Opener(outbound.New(hosts, func() *x509.CertPool { return roots }), entra.Of(token))
	o := options
	o.Timeout, o.Attempts, o.ThrottleLimit, o.BackoffInitial, o.BackoffMax = time.Second, 1, 0, time.Minute, time.Minute
	sender := sinks.NewSender(endpoint, o, open, &letters{stored: make(map[eventID]letter)}, zap.NewNop())
	ctx, cancel := context.WithTimeout(context.Background(), 2*waitTimeout)
	defer cancel()
	defer func() {
		if err := sender.Remove(ctx); err != nil {
			t.Logf("closing: %v", err)
		}
	}()
	send := func(offset int64) string {
		settled := make(chan struct{})
		c := newChunk(0, offset, []string{"event"}, func(*event.Chunk) { close(settled) })
		if err := sender.Enqueue(ctx, c, []*event.Event{&c.Events[0]}); err != nil {
			t.Error(err)
			return ""
		}
		c.Settle(1)
		select {
		case <-settled:
		case <-ctx.Done():
			t.Error("the event has no outcome")
		}
		return sender.Snapshot().LastError
	}
	if row.warm {
		send(0)
	}
	name := entity
	if row.whole && !s.isGrid() {
		name = emulator.Namespace
	}
	if err := service.SetFault(name, row.fault); err != nil {
		t.Fatal(err)
	}
	got := send(1)
	if s.Type != endpoints.TypeEventHub {
		want = strings.ReplaceAll(want, "ENTITY", `the topic "twins"`)
	}
	want = strings.ReplaceAll(want, "ENTITY", `the hub "twins"`)
	want = strings.ReplaceAll(want, "HOST", regexp.QuoteMeta(endpoint.Host()))
	// The state of a hub may be that of its partition, which is named behind it.
	if !regexp.MustCompile(`^(?s)` + want + `( \(partition \d\))?$`).MatchString(got) {
		t.Errorf("the last error is\n%s\nwant\n%s", got, want)
	}
}
