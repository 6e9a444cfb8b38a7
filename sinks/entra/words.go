package entra

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
)

// code matches the number of an error of Entra ID.
var code = regexp.MustCompile(`AADSTS(\d+)`)

// codes are what some of them mean for whoever runs this process; see "Microsoft
// Entra authentication and authorization error codes".
var codes = map[string]struct{ cause, what string }{
	"7000222": {"expired", "the secret of this process's identity has expired: make a new one for its application, and set it here"},
	"7000215": {"unauthorized", "the secret of this process's identity is wrong: it takes the secret's value, not its id"},
	"700016":  {"unauthorized", "the application of this process's identity is not in this tenant: check the client id and the tenant id"},
	"90002":   {"unauthorized", "the tenant doesn't exist: check the tenant id, and that the cloud is the right one"},
	"700027":  {"unauthorized", "the certificate of this process's identity is not registered for its application, or has expired: register the present one"},
	"700213":  {"unauthorized", "no federated credential matches this workload: check issuer, subject and audience at the application"},
	"70021":   {"unauthorized", "no federated credential matches this workload: check issuer, subject and audience at the application"},
	"700024":  {"expired", "the token of this workload has expired: check that it is mounted and renewed, and the clock of this machine"},
}

// explained puts a sentence before the words of Entra ID, or of who asked there.
func explained(e *sinks.Error) *sinks.Error {
	const what = "no token from Entra ID: "
	if m := code.FindStringSubmatch(e.Err.Error()); m != nil {
		if known, ok := codes[m[1]]; ok {
			e.Cause, e.Err = known.cause, fmt.Errorf(what+"%s (%w)", known.what, e.Err)
			return e
		}
	}
	if _, is := errors.AsType[*azidentity.AuthenticationFailedError](e.Err); !is && e.Reason == event.Unauthorized {
		e.Cause, e.Err = "no_identity", fmt.Errorf(what+"%w", e.Err)
		return e
	}
	switch f, is := errors.AsType[*outbound.Failure](e.Err); {
	case is:
		e.Cause = f.Cause
	case errors.Is(e.Err, context.DeadlineExceeded):
		e.Cause, e.Err = outbound.CauseSilent, fmt.Errorf("it doesn't answer in time: check the network, and the environment's AZURE_ variables (%w)", e.Err)
	}
	e.Err = fmt.Errorf(what+"%w", e.Err)
	return e
}
