// Package deploycheck checks what deploy/ has for Kubernetes, Prometheus and
// Grafana the way those programs will: manifests are built by kustomize's own
// code and decoded into the API's own types, unknown fields refused; the
// configuration in them is loaded by the program's own loader; queries are
// parsed by Prometheus' parser, and run. On top of that come the mistakes that
// no schema sees: a selector that matches nothing, a probe of a port that
// nobody listens on, a pod that is killed before it may stop.
//
// It is a module of its own because of what that depends on, and all tests:
//
//	go test ./...
package deploycheck
