package deploycheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/kedacore/keda/v2/version" // keeps the module in go.mod: its CRDs are read
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// object is one manifest: its API type, or unstructured.Unstructured for KEDA's,
// whose Go types would bring half of every cloud's SDK along.
type object = runtime.Object

// build is `kustomize build DIR`, with every object decoded strictly.
func build(t *testing.T, dir string) (objects []object) {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if ns := r.GetNamespace(); ns == "" {
			t.Errorf("%s has no namespace", r.CurId())
		}
		o, err := decode(t, r.GetApiVersion(), text)
		if err != nil {
			t.Errorf("%s: %v", r.CurId(), err)
			continue
		}
		objects = append(objects, o)
	}
	if t.Failed() {
		t.FailNow()
	}
	return objects
}

func decode(t *testing.T, version string, text []byte) (object, error) {
	t.Helper()
	if strings.HasPrefix(version, "keda.sh/") {
		return decodeCustom(t, text)
	}
	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, monitoringv1.AddToScheme} {
		if err := add(types); err != nil {
			t.Fatal(err)
		}
	}
	o, _, err := serializer.NewCodecFactory(types, serializer.EnableStrict).UniversalDeserializer().Decode(text, nil, nil)
	return o, err
}

// decodeCustom holds a custom resource against its definition as the API server
// does: OpenAPI validation, and no field that would be pruned.
func decodeCustom(t *testing.T, text []byte) (object, error) {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict(text, &u.Object); err != nil {
		return nil, err
	}
	props := definition(t, u)
	structural, err := schema.NewStructural(props)
	if err != nil {
		t.Fatal(err)
	}
	unknown := pruning.PruneWithOptions(runtime.DeepCopyJSON(u.Object), structural, true,
		schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		t.Errorf("%s %s: unknown field %s", u.GetKind(), u.GetName(), path)
	}
	validator, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		t.Fatal(err)
	}
	return u, validation.ValidateCustomResource(nil, u.Object, validator).ToAggregate()
}

// definition is the schema of an object's kind, from KEDA's own release.
func definition(t *testing.T, u *unstructured.Unstructured) *apiextensions.JSONSchemaProps {
	t.Helper()
	plural := strings.ToLower(u.GetKind()) + "s"
	var crd apiextensionsv1.CustomResourceDefinition
	file := filepath.Join(kedaModule(t), "config", "crd", "bases", "keda.sh_"+plural+".yaml")
	if err := yaml.Unmarshal([]byte(read(t, file)), &crd); err != nil {
		t.Fatal(err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Name != u.GroupVersionKind().Version {
			continue
		}
		props := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, props, nil); err != nil {
			t.Fatal(err)
		}
		return props
	}
	t.Fatalf("KEDA has no %s", u.GroupVersionKind())
	return nil
}

func kedaModule(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(testContext(t), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
