package endpoints

import (
	"slices"
	"testing"
)

func TestSecrets(t *testing.T) {
	const signature = "SharedAccessSignature sr=ns&sig=a%2Bb%3D&se=1&skn=send"
	tests := map[string]struct {
		endpoint Endpoint
		want     []string
	}{
		"keys": {Endpoint{
			Type:                      TypeEventHub,
			ConnectionString:          "Endpoint=sb://ns.example/;SharedAccessKeyName=send;SharedAccessKey=cHJp",
			SecondaryConnectionString: "Endpoint=sb://ns.example/;SharedAccessKeyName=send;SharedAccessKey=c2Vj",
		}, []string{"cHJp", "c2Vj"}},
		"a signature": {
			Endpoint{Type: TypeServiceBus, ConnectionString: "Endpoint=sb://ns.example/;SharedAccessSignature=" + signature},
			[]string{signature, "a%2Bb%3D", "a+b="},
		},
		"bare keys":      {Endpoint{Type: TypeEventGrid, ConnectionString: "cHJp", SecondaryConnectionString: "c2Vj"}, []string{"cHJp", "c2Vj"}},
		"a broken one":   {Endpoint{Type: TypeEventHub, ConnectionString: "Endpoint=cHJp"}, []string{"Endpoint=cHJp"}},
		"an identity":    {Endpoint{Type: TypeEventHub, Authentication: AuthenticationIdentity, ConnectionString: "Endpoint=sb://ns.example/"}, nil},
		"without either": {Endpoint{}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.endpoint.Secrets(); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
