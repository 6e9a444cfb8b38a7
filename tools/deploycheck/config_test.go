package deploycheck

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// root is the repository's, seen from here.
var root = filepath.Join("..", "..")

// settings is the program's configuration, as far as it is looked at here.
type settings struct {
	Ingest struct {
		Brokers, Topics   []string
		Group, InstanceID string
		MaxInFlightBytes  size
		TLS               struct {
			Enabled                   bool
			CAFile, CertFile, KeyFile string
		}
		SASL struct{ Mechanism, PasswordFile string }
	}
	Endpoints struct{ Store, File, SecretsKeyFile string }
	API       struct {
		Listen, TokensFile string
		Tokens             []any
	}
	Ops      struct{ Listen string }
	Send     struct{ CAFile string }
	Shutdown struct{ Timeout time.Duration }
}

// size is as the program writes it: 64MiB.
type size string

func (s size) value() int64 {
	q, err := resource.ParseQuantity(strings.TrimSuffix(string(s), "B"))
	if err != nil {
		return math.MaxInt64
	}
	return q.Value()
}

// files are the files that are named, by key.
func (s settings) files() map[string]string {
	named := map[string]string{
		"ingest.tls.caFile": s.Ingest.TLS.CAFile, "ingest.tls.certFile": s.Ingest.TLS.CertFile, "ingest.tls.keyFile": s.Ingest.TLS.KeyFile,
		"ingest.sasl.passwordFile": s.Ingest.SASL.PasswordFile, "endpoints.secretsKeyFile": s.Endpoints.SecretsKeyFile,
		"api.tokensFile": s.API.TokensFile, "send.caFile": s.Send.CAFile,
	}
	if s.Endpoints.Store == "file" {
		named["endpoints.file"] = s.Endpoints.File
	}
	maps.DeleteFunc(named, func(_, path string) bool { return path == "" })
	return named
}

// loadConfig loads a configuration file with the program's own loader, in the
// environment of the pod alone. Paths below the mounts are the pod's: they are
// looked for under the directory mounts.
func loadConfig(t *testing.T, mounts, file string, env []string) (s settings) {
	t.Helper()
	text := read(t, filepath.Join(mounts, file))
	for _, dir := range []string{"/etc/twinegress/", "/run/secrets/twinegress/"} {
		text = strings.ReplaceAll(text, dir, filepath.Join(mounts, dir)+"/")
	}
	there := filepath.Join(t.TempDir(), "twinegress.yaml")
	if err := os.WriteFile(there, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "showconfig")
	build := exec.CommandContext(testContext(t), "go", "build", "-o", program, "./deploy/showconfig")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	show := exec.CommandContext(testContext(t), program, there)
	show.Env = env
	var out, errs bytes.Buffer
	show.Stdout, show.Stderr = &out, &errs
	if err := show.Run(); err != nil {
		t.Fatalf("the configuration is refused:\n%s", errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// image is what the Dockerfile says of the image.
type image struct {
	name   string   // of the example at the top
	uid    string   // of USER
	expose []string // ports
	cmd    []string
}

func dockerfile(t *testing.T) (i image) {
	t.Helper()
	text := read(t, filepath.Join(root, "deploy", "Dockerfile"))
	find := func(pattern string) string {
		m := regexp.MustCompile(`(?m)` + pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("nothing like %s in the Dockerfile", pattern)
		}
		return m[1]
	}
	i.name = find(`^#   docker build .* -t (\S+) \.$`)
	i.uid = find(`^USER (\d+)`)
	i.expose = strings.Fields(find(`^EXPOSE (.+)$`))
	if err := json.Unmarshal([]byte(find(`^CMD (.+)$`)), &i.cmd); err != nil {
		t.Fatal(err)
	}
	return i
}
