package kafka

import (
	"crypto/x509"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// permanent are the brokers' errors that somebody has to correct. Others that the
// client doesn't retry may pass: too few brokers for a new topic's replicas are
// mostly brokers that have not started yet.
var permanent = []error{
	kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
	kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
	kerr.InvalidTopicException, kerr.InvalidConfig, kerr.PolicyViolation, kerr.UnsupportedVersion,
}

// Permanent reports whether an error of the start is one that waiting doesn't mend:
// this client is refused, or what it asks for is.
func Permanent(err error) bool {
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		return true
	}
	if _, is := errors.AsType[x509.HostnameError](err); is {
		return true
	}
	return slices.ContainsFunc(permanent, func(p error) bool { return errors.Is(err, p) })
}
