package emulator_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"twinegress/internal/emulator"
)

// connect returns a sender of the SDK for the entity.
func connect(t *testing.T, entity, connectionString string) sender {
	if strings.HasPrefix(entity, "hub") {
		return hub(t, connectionString, entity)
	}
	return topic(t, connectionString, entity)
}

func TestWrongKey(t *testing.T) {
	both(t, func(t *testing.T, e *emulator.Emulator, entity string, _ sender) {
		ctx := within(t, 5*time.Second)
		cs := e.ConnectionString(emulator.Primary)
		for name, bad := range map[string]string{
			"key":    strings.Replace(cs, "SharedAccessKey=", "SharedAccessKey=x", 1),
			"policy": strings.Replace(cs, emulator.DefaultPolicy, "Other", 1),
		} {
			if err := connect(t, entity, bad).send(ctx, "", "a"); class(err) != "unauthorized" {
				t.Errorf("wrong %s: %v", name, err)
			}
		}
		if err := connect(t, entity, e.ConnectionString(emulator.Secondary)).send(ctx, "", "a"); err != nil {
			t.Errorf("secondary: %v", err)
		}
	})
}

func TestExpiredToken(t *testing.T) {
	both(t, func(t *testing.T, e *emulator.Emulator, entity string, _ sender) {
		ctx := within(t, 5*time.Second)
		for _, c := range []struct {
			name, resource string
			age            time.Duration
			ok             bool
		}{
			{"good", e.AMQPAddr(), -time.Hour, true},
			{"expired", e.AMQPAddr(), time.Second, false},
			{"of another host", "other:1", -time.Hour, false},
			{"of another entity", e.AMQPAddr() + "/else", -time.Hour, false},
			{"of this entity", "amqp://" + e.AMQPAddr() + "/" + entity, -time.Hour, true},
		} {
			token := sign(c.resource, time.Now().Add(-c.age), key(e))
			cs := fmt.Sprintf("Endpoint=sb://%s;SharedAccessSignature=%s;UseDevelopmentEmulator=true", e.AMQPAddr(), token)
			err := connect(t, entity, cs).send(ctx, "", "a")
			if c.ok && err != nil || !c.ok && class(err) != "unauthorized" {
				t.Errorf("token %s: %v", c.name, err)
			}
		}
	})
}

// key returns the primary key in the connection string.
func key(e *emulator.Emulator) string {
	_, rest, _ := strings.Cut(e.ConnectionString(emulator.Primary), "SharedAccessKey=")
	k, _, _ := strings.Cut(rest, ";")
	return k
}

func sign(resource string, expires time.Time, key string) string {
	sr := url.QueryEscape(resource)
	h := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(h, "%s\n%d", sr, expires.Unix())
	return fmt.Sprintf("SharedAccessSignature sr=%s&sig=%s&se=%d&skn=%s", sr,
		url.QueryEscape(base64.StdEncoding.EncodeToString(h.Sum(nil))), expires.Unix(), emulator.DefaultPolicy)
}

func TestUnknownEntity(t *testing.T) {
	e := start(t)
	ctx := within(t, 5*time.Second)
	if err := hub(t, e.ConnectionString(emulator.Primary), "nohub").send(ctx, "", "a"); class(err) != "amqp:not-found" {
		t.Errorf("hub: %v", err)
	}
	if err := topic(t, e.ConnectionString(emulator.Primary), "notopic").send(ctx, "", "a"); class(err) != "amqp:not-found" {
		t.Errorf("topic: %v", err)
	}
}

func TestEntityKeys(t *testing.T) {
	e := start(t, func(c *emulator.Config) { c.Hubs[0].Keys = &emulator.KeyPair{Policy: "send"} })
	ctx := within(t, 5*time.Second)
	if err := hub(t, e.ConnectionString(emulator.Primary), "hub").send(ctx, "", "a"); class(err) != "unauthorized" {
		t.Errorf("namespace key: %v", err)
	}
	for _, k := range []emulator.Key{emulator.Primary, emulator.Secondary} {
		if err := hub(t, e.EntityConnectionString("hub", k), "").send(ctx, "", "a"); err != nil {
			t.Errorf("own %s key: %v", k, err)
		}
	}
}

// Attaching without a token is refused.
func TestAttachWithoutToken(t *testing.T) {
	e := start(t)
	ctx := within(t, 5*time.Second)
	c, err := amqp.Dial(ctx, "amqp://"+e.AMQPAddr(), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"hub", "hub/Partitions/0", "topic", "$management", "unknown"} {
		if _, err := s.NewSender(ctx, address, nil); class(err) != "amqp:unauthorized-access" {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// bearer is a credential with a fixed token, in place of Entra ID's.
type bearer string

func (b bearer) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(b), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// TLS, a service's host name and another address to connect to, as close to
// production as a test can be; with a key and with an identity.
func TestTLS(t *testing.T) {
	e := start(t, func(c *emulator.Config) { c.AMQPTLS, c.BearerToken = true, "entra" })
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(e.CAPEM()) {
		t.Fatal("no certificate in CAPEM")
	}
	ctx := within(t, 5*time.Second)
	const host = "ns.servicebus.windows.net"
	opts := &azeventhubs.ProducerClientOptions{
		TLSConfig: &tls.Config{RootCAs: pool}, CustomEndpoint: e.AMQPAddr(),
		RetryOptions: azeventhubs.RetryOptions{MaxRetries: 1, RetryDelay: time.Millisecond},
	}
	send := func(c *azeventhubs.ProducerClient, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		return hubSender{c}.send(ctx, "", "a")
	}
	cs := strings.Replace(e.ConnectionString(emulator.Primary), e.AMQPAddr(), host, 1)
	if err := send(azeventhubs.NewProducerClientFromConnectionString(cs, "hub", opts)); err != nil {
		t.Errorf("with a key: %v", err)
	}
	if err := send(azeventhubs.NewProducerClient(host, "hub", bearer("entra"), opts)); err != nil {
		t.Errorf("with an identity: %v", err)
	}
	if err := send(azeventhubs.NewProducerClient(host, "hub", bearer("other"), opts)); class(err) != "unauthorized" {
		t.Errorf("with another identity: %v", err)
	}
	sb, err := azservicebus.NewClient(host, bearer("entra"), &azservicebus.ClientOptions{
		TLSConfig: opts.TLSConfig, CustomEndpoint: e.AMQPAddr(),
		RetryOptions: azservicebus.RetryOptions{MaxRetries: 1, RetryDelay: time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close(ctx)
	s, err := sb.NewSender("topic", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := (topicSender{s}).send(ctx, "", "a"); err != nil {
		t.Errorf("Service Bus with an identity: %v", err)
	}
	if n := e.Stats().Count(); n != 3 {
		t.Errorf("%d messages", n)
	}
}
