package entra

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"go.uber.org/goleak"

	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer is a credential with a test's answers.
type issuer struct {
	calls  atomic.Int32
	answer func(ctx context.Context, call int) (azcore.AccessToken, error)
}

func (i *issuer) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return i.answer(ctx, int(i.calls.Add(1)))
}

func token(name string, lasts time.Duration) azcore.AccessToken {
	return azcore.AccessToken{Token: name, ExpiresOn: time.Now().Add(lasts)}
}

// ask returns the token's name, or the error.
func ask(i *Identity, scope string) string {
	token, err := i.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return err.Error()
	}
	return token.Token
}

func TestTokensAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := false
		issued := &issuer{answer: func(_ context.Context, call int) (azcore.AccessToken, error) {
			if fails {
				return azcore.AccessToken{}, errors.New("down")
			}
			return token(fmt.Sprint("token ", call), time.Hour), nil
		}}
		identity := Of(issued)
		expect := func(when, want string, calls int32) {
			t.Helper()
			if got := ask(identity, EventHubs); got != want || issued.calls.Load() != calls {
				t.Errorf("%s: %s after %d calls, want %s after %d", when, got, issued.calls.Load(), want, calls)
			}
		}
		expect("at first", "token 1", 1)
		time.Sleep(54 * time.Minute)
		expect("while it is good", "token 1", 1)
		if got := ask(identity, ServiceBus); got != "token 2" {
			t.Errorf("another scope: %s", got)
		}
		time.Sleep(time.Minute)
		expect("five minutes before its end", "token 3", 3)

		// The new one's end, with nobody to renew it.
		fails = true
		time.Sleep(56 * time.Minute)
		expect("not renewed, still good", "token 3", 4)
		expect("not asked for again at once", "token 3", 4)
		time.Sleep(refreshEvery)
		expect("asked for again", "token 3", 5)
		time.Sleep(4 * time.Minute)
		expect("over", "down", 6)
		fails = false
		expect("mended", "token 7", 7)
	})
}

// A claims challenge is never answered from memory.
func TestClaims(t *testing.T) {
	issued := &issuer{answer: func(_ context.Context, call int) (azcore.AccessToken, error) {
		return token(fmt.Sprint(call), time.Hour), nil
	}}
	identity := Of(issued)
	ask(identity, EventGrid)
	if got, err := identity.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{EventGrid}, Claims: "{}"}); err != nil || got.Token != "2" {
		t.Errorf("%s, %v", got.Token, err)
	}
}

// Many calls for one token make one request. Each waits within its own time
// limit, also where the SDK sets none.
func TestOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		issued := &issuer{answer: func(ctx context.Context, call int) (azcore.AccessToken, error) {
			if call == 1 {
				<-ctx.Done() // never answers
				return azcore.AccessToken{}, errors.New("odd words")
			}
			<-release
			return token("token", time.Hour), nil
		}}
		identity := Of(issued)
		begun := time.Now()
		var asking sync.WaitGroup
		asking.Go(func() { // as the AMQP SDKs do
			if got := ask(identity, EventHubs); !strings.Contains(got, "deadline exceeded") || time.Since(begun) != fetchTimeout {
				t.Errorf("without a limit: %s after %v", got, time.Since(begun))
			}
		})
		synctest.Wait()
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			err := identity.Check(ctx, EventHubs)
			if e, ok := errors.AsType[*sinks.Error](err); !ok || e.Reason != event.Unreachable || time.Since(begun) != time.Second {
				t.Errorf("in line behind one that hangs: %v after %v", err, time.Since(begun))
			}
		})
		asking.Wait()
		for range 8 {
			asking.Go(func() {
				if err := identity.Check(context.Background(), EventHubs); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(release)
		asking.Wait()
		if n := issued.calls.Load(); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// While one call renews a token that is still usable, no other waits for it.
func TestRenewalHoldsNobodyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		identity := Of(&issuer{answer: func(_ context.Context, call int) (azcore.AccessToken, error) {
			if call == 2 {
				<-release
			}
			return token(fmt.Sprint("token ", call), time.Hour), nil
		}})
		ask(identity, EventHubs)
		time.Sleep(57 * time.Minute)
		var renewing sync.WaitGroup
		renewing.Go(func() { ask(identity, EventHubs) })
		synctest.Wait()
		if got := ask(identity, EventHubs); got != "token 1" {
			t.Errorf("meanwhile: %s", got)
		}
		close(release)
		renewing.Wait()
		if got := ask(identity, EventHubs); got != "token 2" {
			t.Errorf("after: %s", got)
		}
	})
}

// login stands for Entra ID's token endpoint.
type login struct {
	*httptest.Server
	answer atomic.Pointer[func(http.ResponseWriter, *http.Request)]
	asked  atomic.Int32
}

func newLogin(t *testing.T) *login {
	l := new(login)
	l.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
			_ = json.NewEncoder(w).Encode(map[string]string{
				"issuer": l.URL + "/tenant/v2.0", "authorization_endpoint": l.URL + "/tenant/authorize", "token_endpoint": l.URL + "/tenant/token",
			})
			return
		}
		l.asked.Add(1)
		(*l.answer.Load())(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *login) says(status int, body string) {
	answer := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
	l.answer.Store(&answer)
}

// The real chain of credentials, with the environment that the workload identity
// webhook sets in a pod, against a token endpoint over a socket.
func TestWorkloadIdentity(t *testing.T) {
	l := newLogin(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("the pod's own token"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AZURE_TENANT_ID", "tenant")
	t.Setenv("AZURE_CLIENT_ID", "client")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
	t.Setenv("AZURE_AUTHORITY_HOST", l.URL)
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
	roots := x509.NewCertPool()
	roots.AddCert(l.Certificate())
	dialer := outbound.New(nil, func() *x509.CertPool { return roots })
	options := func() *azidentity.DefaultAzureCredentialOptions {
		o := &azidentity.DefaultAzureCredentialOptions{DisableInstanceDiscovery: true}
		o.Retry.MaxRetries = -1
		return o
	}
	const refused = `{"error":"invalid_client","error_description":"AADSTS700213: No matching federated identity record found"}`
	for _, test := range []struct {
		name   string
		status int
		body   string
		reason event.Reason
		says   string
	}{
		{"refused", 401, refused, event.Unauthorized, "AADSTS700213"},
		{"unknown client", 400, strings.Replace(refused, "700213", "700016", 1), event.Unauthorized, "AADSTS700016"},
		{"busy", 429, "{}", event.Unreachable, "429"},
		{"down", 503, "{}", event.Unreachable, "503"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l.says(test.status, test.body)
			err := newDefault(options(), dialer).Check(t.Context(), EventHubs)
			e, ok := errors.AsType[*sinks.Error](err)
			if !ok || e.Reason != test.reason || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %s and %s", err, test.reason, test.says)
			}
			if text := err.Error(); strings.ContainsAny(text, "\n\t") || len(text) > maxMessage+100 || strings.Contains(text, "the pod's") {
				t.Errorf("%q is not one short line", text)
			}
		})
	}

	t.Run("token", func(t *testing.T) {
		answer := func(w http.ResponseWriter, r *http.Request) {
			if got := r.FormValue("client_assertion"); got != "the pod's own token" {
				t.Errorf("the assertion is %q", got)
			}
			if got := r.FormValue("scope"); !strings.HasPrefix(got, EventHubs) {
				t.Errorf("the scope is %q", got)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"token_type":"Bearer","expires_in":3599,"access_token":"from the login"}`))
		}
		l.answer.Store(&answer)
		identity := newDefault(options(), dialer)
		before := l.asked.Load()
		for range 3 {
			if got := ask(identity, EventHubs); got != "from the login" {
				t.Errorf("got %s", got)
			}
		}
		if n := l.asked.Load() - before; n != 1 {
			t.Errorf("%d requests for one token", n)
		}
	})

	// How much of an answer is read, by what the service could write of it. Its
	// connection takes some megabytes more than are read at the other end.
	for name, test := range map[string]struct {
		status, size int
		gzip         bool
		says         string // "": a token
	}{
		"as long as it may be":     {status: 200, size: maxReply},
		"a byte longer":            {status: 200, size: maxReply + 1, says: "longer than"},
		"32 MiB":                   {status: 200, size: 32 << 20, says: "longer than"},
		"a refusal of 32 MiB":      {status: 401, size: 32 << 20, says: "longer than"},
		"32 MiB that were 32 KiB":  {status: 200, size: 32 << 20, gzip: true, says: "invalid"},
		"a refusal, short as ever": {status: 401, size: 100, says: "401"},
	} {
		t.Run(name, func(t *testing.T) {
			// Made before the time-out of a request begins.
			const start = `{"token_type":"Bearer","expires_in":3599,"access_token":"from the login"`
			reply := []byte(start + strings.Repeat(" ", test.size-len(start)-1) + "}")
			if test.gzip {
				var packed bytes.Buffer
				w := gzip.NewWriter(&packed)
				_, _ = w.Write(reply)
				_ = w.Close()
				reply = packed.Bytes()
			}
			var written atomic.Int64
			answer := func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Accept-Encoding") == "gzip" {
					t.Error("a compressed answer is asked for")
				}
				w.Header().Set("Content-Type", "application/json")
				if test.gzip {
					w.Header().Set("Content-Encoding", "gzip")
				}
				w.WriteHeader(test.status)
				for left := reply; len(left) > 0; {
					n, err := w.Write(left[:min(len(left), 64<<10)])
					if left = left[n:]; err != nil {
						return
					}
					written.Add(int64(n))
				}
			}
			l.answer.Store(&answer)
			err := newDefault(options(), dialer).Check(t.Context(), EventHubs)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			if n := written.Load(); n > 24<<20 {
				t.Errorf("%d bytes were taken from the service", n)
			}
		})
	}

	t.Run("nobody there", func(t *testing.T) {
		l.Close()
		err := newDefault(options(), dialer).Check(t.Context(), EventHubs)
		if e, ok := errors.AsType[*sinks.Error](err); !ok || e.Reason != event.Unreachable || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%v", err)
		}
	})
}

// Outside of Azure, with nothing set up, the error names what was tried.
func TestNoIdentity(t *testing.T) {
	for name, credentials := range map[string]string{"nothing set up": "EnvironmentCredential", "no such credential": "Typo"} {
		t.Setenv("AZURE_TOKEN_CREDENTIALS", credentials)
		err := New(nil).Check(t.Context(), EventHubs)
		e, ok := errors.AsType[*sinks.Error](err)
		if !ok || e.Reason != event.Unauthorized || !strings.Contains(err.Error(), credentials) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
