package deploycheck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// shutdownMargin is what a pod needs beyond shutdown.timeout: to be told, to
// close its listeners, to be torn down.
const shutdownMargin = 5 * time.Second

func TestKubernetes(t *testing.T) {
	overlays, err := filepath.Glob(filepath.Join(root, "deploy", "kubernetes", "overlays", "*"))
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlays: %v", err)
	}
	for _, dir := range overlays {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			in := install(t, dir)
			t.Run("image", in.checkImage)
			t.Run("ports", in.checkPorts)
			t.Run("probes", in.checkProbes)
			t.Run("selectors", in.checkSelectors)
			t.Run("shutdown", in.checkShutdown)
			t.Run("memory", in.checkMemory)
			t.Run("security", in.checkSecurity)
			t.Run("network", in.checkNetwork)
			t.Run("files", in.checkFiles)
			t.Run("identity", in.checkIdentity)
			t.Run("scaling", in.checkScaling)
		})
	}
}

// installation is what an overlay comes to.
type installation struct {
	dir     string
	objects []object
	set     *appsv1.StatefulSet
	pod     *corev1.PodSpec
	main    *corev1.Container
	mounts  string // a directory with the pod's volumes under their paths
	config  settings
}

// install builds an overlay, decodes it, mounts the pod's volumes in a
// directory and loads the configuration from there as the program would.
func install(t *testing.T, dir string) *installation {
	t.Helper()
	in := &installation{dir: dir, objects: build(t, dir)}
	in.set = only[*appsv1.StatefulSet](t, in)
	in.pod = &in.set.Spec.Template.Spec
	if len(in.pod.Containers) != 1 {
		t.Fatalf("%d containers", len(in.pod.Containers))
	}
	in.main = &in.pod.Containers[0]
	in.mount(t)
	in.config = loadConfig(t, in.mounts, in.configFile(t), in.environment(t))
	return in
}

// only gives the one object of a type.
func only[T any](t *testing.T, in *installation) T {
	t.Helper()
	found := all[T](in)
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T", len(found), *new(T))
	}
	return found[0]
}

func all[T any](in *installation) (found []T) {
	for _, o := range in.objects {
		if x, ok := o.(T); ok {
			found = append(found, x)
		}
	}
	return found
}

// secretFlag is how an overlay's instructions make the Secret.
var secretFlag = regexp.MustCompile(`--from-(?:file|literal)=([A-Za-z0-9._-]+)`)

// secretKeys are the keys that the Secret has, if one does as the overlay's
// first lines say: the Secret itself is in no repository.
func (in *installation) secretKeys(t *testing.T) (keys []string) {
	t.Helper()
	instructions, _, _ := strings.Cut(read(t, filepath.Join(in.dir, "kustomization.yaml")), "apiVersion:")
	for _, m := range secretFlag.FindAllStringSubmatch(instructions, -1) {
		keys = append(keys, m[1])
	}
	return keys
}

// mount lays the pod's volumes out under their mount paths, as the kubelet does.
func (in *installation) mount(t *testing.T) {
	t.Helper()
	in.mounts = t.TempDir()
	for _, m := range in.main.VolumeMounts {
		i := slices.IndexFunc(in.pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			t.Fatalf("volume mount %s: no such volume", m.Name)
		}
		if m.SubPath != "" {
			t.Errorf("volume mount %s: a subPath is never updated", m.Name)
		}
		files := map[string]string{}
		switch v := in.pod.Volumes[i]; {
		case v.ConfigMap != nil:
			for _, c := range all[*corev1.ConfigMap](in) {
				if c.Name == v.ConfigMap.Name {
					files = c.Data
				}
			}
		case v.Secret != nil && v.Secret.SecretName == "twinegress":
			for _, key := range in.secretKeys(t) {
				files[key] = "x"
			}
			files["tokens.yaml"] = "- {name: ops, role: write, sha256: " + strings.Repeat("ab", 32) + "}\n"
		}
		if len(files) == 0 {
			t.Errorf("volume %s: nothing is in it", m.Name)
		}
		for name, content := range files {
			path := filepath.Join(in.mounts, m.MountPath, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// configFile is the argument of --config: the container's, or the image's.
func (in *installation) configFile(t *testing.T) string {
	t.Helper()
	args := in.main.Args
	if len(args) == 0 {
		args = dockerfile(t).cmd
	}
	i := slices.Index(args, "--config")
	if len(args) == 0 || args[0] != "run" || i < 0 || i+1 >= len(args) {
		t.Fatalf("the container runs %q", args)
	}
	return args[i+1]
}

// environment is the container's, of the first pod.
func (in *installation) environment(t *testing.T) (env []string) {
	t.Helper()
	for _, e := range in.main.Env {
		value := e.Value
		switch from := e.ValueFrom; {
		case from == nil:
		case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.name":
			value = in.set.Name + "-0"
		case from.SecretKeyRef != nil && slices.Contains(in.secretKeys(t), from.SecretKeyRef.Key):
			value = "x"
		default:
			t.Errorf("%s: nobody knows where from: %v", e.Name, from)
		}
		env = append(env, e.Name+"="+value)
	}
	return env
}

func (in *installation) checkImage(t *testing.T) {
	repository, tag, ok := strings.Cut(in.main.Image[strings.LastIndex(in.main.Image, "/")+1:], ":")
	if built := dockerfile(t).name; repository != built {
		t.Errorf("the image is %s; the Dockerfile's is called %s", in.main.Image, built)
	}
	if !ok || tag == "latest" {
		t.Errorf("image %s has no fixed tag", in.main.Image)
	}
}

// Who listens where is said in four places: configuration, container, services
// and image.
func (in *installation) checkPorts(t *testing.T) {
	for name, listen := range map[string]string{"api": in.config.API.Listen, "ops": in.config.Ops.Listen} {
		port, ok := in.containerPort(intstr.FromString(name))
		if !ok || listen != fmt.Sprintf(":%d", port) {
			t.Errorf("container port %s is %d, %s.listen is %q: it must be on all addresses, and that port", name, port, name, listen)
		}
		if exposed := dockerfile(t).expose; !slices.Contains(exposed, fmt.Sprint(port)) {
			t.Errorf("the image exposes %v, not %d", exposed, port)
		}
	}
	if len(in.config.API.Tokens) == 0 {
		t.Error("the Management API has a port and a service, and nobody may call it")
	}
	for _, s := range all[*corev1.Service](in) {
		if !s.Spec.PublishNotReadyAddresses {
			t.Errorf("service %s hides copies that aren't ready: nobody can ask them what they lack", s.Name)
		}
		for _, p := range s.Spec.Ports {
			if _, ok := in.containerPort(p.TargetPort); !ok {
				t.Errorf("service %s: the container has no port %s", s.Name, p.TargetPort.String())
			}
		}
	}
	for _, m := range all[*monitoringv1.PodMonitor](in) {
		for _, e := range m.Spec.PodMetricsEndpoints {
			if e.Port == nil || *e.Port != "ops" || e.Path != "/metrics" {
				t.Errorf("the PodMonitor scrapes %q; metrics are /metrics of ops, and nowhere else", e.Path)
			}
			// The operator adds it, and it would take the place of the metrics' own.
			if !slices.ContainsFunc(e.RelabelConfigs, func(r monitoringv1.RelabelConfig) bool { return r.Action == "labeldrop" && r.Regex == "endpoint" }) {
				t.Error("the PodMonitor's targets have a label endpoint")
			}
		}
	}
}

func (in *installation) containerPort(port intstr.IntOrString) (int32, bool) {
	for _, p := range in.main.Ports {
		if p.Name == port.StrVal || port.StrVal == "" && p.ContainerPort == port.IntVal {
			return p.ContainerPort, true
		}
	}
	return 0, false
}

func (in *installation) checkProbes(t *testing.T) {
	for name, tt := range map[string]struct {
		probe *corev1.Probe
		path  string
	}{
		"startup":   {in.main.StartupProbe, "/healthz"},
		"liveness":  {in.main.LivenessProbe, "/healthz"}, // and not readyz: a restart brings no broker back
		"readiness": {in.main.ReadinessProbe, "/readyz"},
	} {
		if tt.probe == nil || tt.probe.HTTPGet == nil {
			t.Errorf("no %s probe", name)
			continue
		}
		if get := tt.probe.HTTPGet; get.Path != tt.path || get.Port.StrVal != "ops" {
			t.Errorf("the %s probe asks %s of %s, not %s of ops", name, get.Path, get.Port.String(), tt.path)
		}
	}
	// That these paths are served is what the end-to-end tests show.
	if served := read(t, filepath.Join(root, "server", "ops", "ops.go")); !strings.Contains(served, `"GET /healthz"`) || !strings.Contains(served, `"GET /readyz"`) {
		t.Error("server/ops serves no /healthz or no /readyz")
	}
}

func (in *installation) checkSelectors(t *testing.T) {
	pod := labels.Set(in.set.Spec.Template.Labels)
	selects := func(what string, s *metav1.LabelSelector) {
		t.Helper()
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil || selector.Empty() || !selector.Matches(pod) {
			t.Errorf("%s selects %v (%v), the pods have %v", what, selector, err, pod)
		}
	}
	selects("the StatefulSet", in.set.Spec.Selector)
	budget := only[*policyv1.PodDisruptionBudget](t, in)
	selects("the disruption budget", budget.Spec.Selector)
	if budget.Spec.MaxUnavailable == nil || budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("the disruption budget lets %v copies go at once", budget.Spec.MaxUnavailable)
	}
	selects("the network policy", &only[*networkingv1.NetworkPolicy](t, in).Spec.PodSelector)
	for _, s := range all[*corev1.Service](in) {
		selects("service "+s.Name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
	}
	for _, m := range all[*monitoringv1.PodMonitor](in) {
		selects("the PodMonitor", &m.Spec.Selector)
	}
	for _, c := range in.pod.TopologySpreadConstraints {
		selects("the spread over "+c.TopologyKey, c.LabelSelector)
	}
	headless := slices.ContainsFunc(all[*corev1.Service](in), func(s *corev1.Service) bool {
		return s.Name == in.set.Spec.ServiceName && s.Spec.ClusterIP == corev1.ClusterIPNone
	})
	if !headless {
		t.Errorf("no headless service %s, which the StatefulSet names", in.set.Spec.ServiceName)
	}
	if !slices.ContainsFunc(all[*corev1.ServiceAccount](in), func(a *corev1.ServiceAccount) bool { return a.Name == in.pod.ServiceAccountName }) {
		t.Errorf("no service account %s", in.pod.ServiceAccountName)
	}
}

// A pod that is killed before it may stop sends some events again.
func (in *installation) checkShutdown(t *testing.T) {
	grace := time.Duration(*in.pod.TerminationGracePeriodSeconds) * time.Second
	if timeout := in.config.Shutdown.Timeout; grace < timeout+shutdownMargin {
		t.Errorf("terminationGracePeriodSeconds is %s; shutdown.timeout is %s and needs %s more", grace, timeout, shutdownMargin)
	}
}

// Go collects harder when it comes near its limit, which has to be before the
// container's; what is in flight has to fit in well below.
func (in *installation) checkMemory(t *testing.T) {
	container := in.main.Resources.Limits.Memory().Value()
	var goLimit int64
	for _, e := range in.main.Env {
		if e.Name == "GOMEMLIMIT" {
			goLimit = size(e.Value).value()
		}
	}
	if goLimit < container*8/10 || goLimit > container*95/100 {
		t.Errorf("GOMEMLIMIT is %d MiB, the container's limit %d MiB: it should be about nine tenths", goLimit>>20, container>>20)
	}
	if in.config.Ingest.MaxInFlightBytes.value() > goLimit/4 {
		t.Errorf("ingest.maxInFlightBytes is %s, GOMEMLIMIT %d MiB", in.config.Ingest.MaxInFlightBytes, goLimit>>20)
	}
}

func (in *installation) checkSecurity(t *testing.T) {
	p, c := in.pod.SecurityContext, in.main.SecurityContext
	if p == nil || c == nil {
		t.Fatal("no security context")
	}
	for what, ok := range map[string]bool{
		"runs as the image's user": p.RunAsUser != nil && fmt.Sprint(*p.RunAsUser) == dockerfile(t).uid,
		"not as root":              p.RunAsNonRoot != nil && *p.RunAsNonRoot,
		"seccomp's default":        p.SeccompProfile != nil && p.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"a read-only root":         c.ReadOnlyRootFilesystem != nil && *c.ReadOnlyRootFilesystem,
		"no more privileges":       c.AllowPrivilegeEscalation != nil && !*c.AllowPrivilegeEscalation,
		"no capabilities":          c.Capabilities != nil && slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) && len(c.Capabilities.Add) == 0,
		"no API token":             in.pod.AutomountServiceAccountToken != nil && !*in.pod.AutomountServiceAccountToken,
		"a limit of memory":        !in.main.Resources.Limits.Memory().IsZero(),
	} {
		if !ok {
			t.Errorf("missing: %s", what)
		}
	}
	for _, v := range in.pod.Volumes {
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode&0o007 != 0) {
			t.Errorf("secret volume %s can be read by everybody", v.Name)
		}
	}
}

// What is configured must be let through.
func (in *installation) checkNetwork(t *testing.T) {
	policy := only[*networkingv1.NetworkPolicy](t, in)
	open := func(port int) bool {
		for _, rule := range policy.Spec.Egress {
			for _, p := range rule.Ports {
				last := p.Port.IntValue()
				if p.EndPort != nil {
					last = int(*p.EndPort)
				}
				if p.Port.IntValue() <= port && port <= last {
					return true
				}
			}
		}
		return false
	}
	ports := []int{53, 443, 5671} // names; Event Grid and Entra ID; AMQP with TLS
	for _, b := range in.config.Ingest.Brokers {
		ports = append(ports, portOf(t, b))
	}
	for _, p := range ports {
		if !open(p) {
			t.Errorf("the network policy lets nothing out to port %d", p)
		}
	}
	for _, rule := range policy.Spec.Ingress {
		for _, p := range rule.Ports {
			if _, ok := in.containerPort(*p.Port); !ok {
				t.Errorf("the network policy lets in to port %s, which the container doesn't have", p.Port.String())
			}
		}
	}
}

// Every file that the configuration names is mounted.
func (in *installation) checkFiles(t *testing.T) {
	named := in.config.files()
	if len(named) == 0 {
		t.Fatal("the configuration names no file")
	}
	for key, path := range named {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// Static membership stands on a name that a pod has for itself and keeps.
func (in *installation) checkIdentity(t *testing.T) {
	if want := in.set.Name + "-0"; in.config.Ingest.InstanceID != want {
		t.Errorf("ingest.instanceId is %q in pod %s", in.config.Ingest.InstanceID, want)
	}
	if in.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("the copies wait for each other")
	}
	if u := in.set.Spec.UpdateStrategy.Type; u != "" && u != appsv1.RollingUpdateStatefulSetStrategyType {
		t.Errorf("update strategy %s", u)
	}
}

// KEDA reads the lag of the group and the topic that the copies read.
func (in *installation) checkScaling(t *testing.T) {
	scaled := kind(in, "ScaledObject")
	if scaled == nil {
		if in.set.Spec.Replicas == nil {
			t.Error("nobody says how many copies there are")
		}
		return
	}
	if in.set.Spec.Replicas != nil {
		t.Error("the StatefulSet says how many copies there are: each apply would undo KEDA's number")
	}
	target, _, _ := unstructured.NestedStringMap(scaled.Object, "spec", "scaleTargetRef")
	if target["kind"] != "StatefulSet" || target["name"] != in.set.Name {
		t.Errorf("it scales %v", target)
	}
	triggers, _, _ := unstructured.NestedSlice(scaled.Object, "spec", "triggers")
	if len(triggers) != 1 {
		t.Fatalf("%d triggers", len(triggers))
	}
	metadata, _, _ := unstructured.NestedStringMap(triggers[0].(map[string]any), "metadata")
	ingest := in.config.Ingest
	for key, want := range map[string]string{
		"bootstrapServers": strings.Join(ingest.Brokers, ","), "consumerGroup": ingest.Group, "topic": strings.Join(ingest.Topics, ","),
		"sasl": strings.ToLower(strings.NewReplacer("-SHA-", "_sha", "SCRAM", "scram").Replace(ingest.SASL.Mechanism)),
		"tls":  map[bool]string{true: "enable", false: "disable"}[ingest.TLS.Enabled], "allowIdleConsumers": "false",
	} {
		if metadata[key] != want {
			t.Errorf("the trigger's %s is %q, in twinegress.yaml it comes to %q", key, metadata[key], want)
		}
	}
	auth := kind(in, "TriggerAuthentication")
	if auth == nil {
		t.Fatal("no TriggerAuthentication")
	}
	refs, _, _ := unstructured.NestedSlice(auth.Object, "spec", "secretTargetRef")
	for _, r := range refs {
		if key := r.(map[string]any)["key"].(string); !slices.Contains(in.secretKeys(t), key) {
			t.Errorf("the Secret has no %s", key)
		}
	}
	if name, _, _ := unstructured.NestedString(triggers[0].(map[string]any), "authenticationRef", "name"); name != auth.GetName() {
		t.Errorf("the trigger's authentication is %q", name)
	}
}

func kind(in *installation, kind string) *unstructured.Unstructured {
	for _, u := range all[*unstructured.Unstructured](in) {
		if u.GetKind() == kind {
			return u
		}
	}
	return nil
}

// testContext bounds what a test starts.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
