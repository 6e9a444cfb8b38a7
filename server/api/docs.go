package api

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// viewer is Swagger UI from the npm package swagger-ui-dist (see VERSION), compressed.
// With it embedded, the page needs no other site.
//
//go:embed viewer
var viewer embed.FS

// pagePolicy allows the page to load from here only. The viewer uses inline styles.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// serveDocs serves the OpenAPI document and the page that shows it. It must be
// called after all operations are registered.
func serveDocs(mux *http.ServeMux, document *huma.OpenAPI) {
	for _, path := range document.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Put, path.Delete} {
			if op == nil {
				continue
			}
			delete(op.Responses, "422") // huma documents it for what is a 400 here: see newError
			for status, response := range op.Responses {
				describeHeaders(status, response)
			}
		}
	}
	for path, content := range map[string]struct {
		kind  string
		write func() ([]byte, error)
	}{
		"GET /openapi.json": {"application/json", func() ([]byte, error) { return json.MarshalIndent(document, "", "  ") }},
		"GET /openapi.yaml": {"application/yaml", document.YAML},
	} {
		text := sync.OnceValues(content.write)
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			b, err := text()
			if err != nil {
				panic("BUG: the OpenAPI document can't be written: " + err.Error())
			}
			w.Header().Set("Content-Type", content.kind)
			_, _ = w.Write(b)
		})
	}
	for path, file := range map[string]struct{ kind, name string }{
		"GET /docs":                         {"text/html; charset=utf-8", "index.html"},
		"GET /docs/start.js":                {"text/javascript; charset=utf-8", "start.js"},
		"GET /docs/swagger-ui-bundle.js":    {"text/javascript; charset=utf-8", "swagger-ui-bundle.js.gz"},
		"GET /docs/swagger-ui.css":          {"text/css; charset=utf-8", "swagger-ui.css.gz"},
		"GET /docs/swagger-ui-licences.txt": {"text/plain; charset=utf-8", "swagger-ui-bundle.js.LICENSE.txt"},
	} {
		mux.HandleFunc(path, viewerFile(file.kind, file.name))
	}
}

// describeHeaders documents the headers that replies of all operations have.
func describeHeaders(status string, r *huma.Response) {
	header := func(name, description string) {
		if r.Headers == nil {
			r.Headers = make(map[string]*huma.Param)
		}
		r.Headers[name] = &huma.Param{Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	header(requestIDHeader, "The request's id, as in the log")
	switch status {
	case "304":
		header("ETag", "What If-None-Match said")
	case "401":
		header("WWW-Authenticate", "How to say who the request is from")
	case "429", "503":
		header("Retry-After", "Seconds until it is worth another try")
	}
}

func viewerFile(kind, name string) http.HandlerFunc {
	content, err := viewer.ReadFile("viewer/" + name)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Security-Policy", pagePolicy)
		w.Header().Set("Referrer-Policy", "no-referrer")
		switch {
		case !strings.HasSuffix(name, ".gz"):
			_, _ = w.Write(content)
		case strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"):
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(content)
		default:
			if unzipped, err := gzip.NewReader(bytes.NewReader(content)); err == nil {
				_, _ = io.Copy(w, unzipped) //nolint:gosec // our own file
			}
		}
	}
}
