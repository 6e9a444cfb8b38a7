package api

import (
	"context"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"twinegress/endpoints"
)

// maxBody is the largest accepted body. huma's limit is exclusive.
const maxBody = 1 << 20

// changeTimeout bounds a change of the store.
const changeTimeout = 20 * time.Second

// operations are the operations on endpoints.
type operations struct{ Options }

// ByID is the input of an operation on one endpoint.
type ByID struct {
	ID string `path:"id" doc:"The endpoint's id" example:"568fd394-380b-46fa-925a-ebb96f658cce"`
}

// JSONBody is an endpoint in JSON. Package endpoints decodes it, not huma: it is
// compatible with v1's clients, and reports all mistakes at once.
type JSONBody struct {
	RawBody []byte `contentType:"application/json"`
}

// Resolve rejects bodies that aren't JSON; huma calls it. A body without a content
// type is accepted; one with a form's, curl's default, is not: a page of another
// site can send that without a preflight request.
func (*JSONBody) Resolve(ctx huma.Context) []error {
	given := ctx.Header("Content-Type")
	media, parameters, err := mime.ParseMediaType(given)
	charset := parameters["charset"]
	switch {
	case given == "":
	case err == nil && (media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")) &&
		(charset == "" || strings.EqualFold(charset, "utf-8")):
	default:
		return []error{failure(http.StatusUnsupportedMediaType, "the body must be JSON in UTF-8, with Content-Type: application/json")}
	}
	if encoding := ctx.Header("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return []error{failure(http.StatusUnsupportedMediaType, "the body must not have a Content-Encoding")}
	}
	return nil
}

// Condition is the If-Match of a change.
type Condition struct {
	IfMatch []string `header:"If-Match" doc:"412 if the endpoint was changed since it had this ETag"`
}

// Resolve reads all lines of the header, of which huma reads the first, and rejects a
// header without a tag: it is a script whose variable isn't set, and taken for no
// condition it would overwrite what another has changed. huma calls it.
func (c *Condition) Resolve(ctx huma.Context) []error {
	c.IfMatch = nil
	given, tags := false, false
	ctx.EachHeader(func(name, value string) {
		if name == "If-Match" {
			given, tags = true, tags || strings.Trim(value, " \t,") != ""
			c.IfMatch = append(c.IfMatch, value)
		}
	})
	if given && !tags {
		return []error{failure(http.StatusBadRequest, "If-Match is empty: give the endpoint's ETag, or leave the header out")}
	}
	return nil
}

type (
	created struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     string `format:"uuid" doc:"The new endpoint's id"`
	}
	listed struct {
		Link string `header:"Link" doc:"rel=next: the next ones, with $top"`
		Body []Endpoint
	}
	found struct {
		ETag string `header:"ETag"`
		Body Endpoint
	}
	changed struct {
		ETag string `header:"ETag"`
	}
	retried struct {
		Body struct {
			Copies int    `json:"copies" doc:"how many copies are known, and so asked to, with this one"`
			Notice string `json:"notice" doc:"why others may not hear of it; empty if they do"`
		}
	}
)

func registerEndpoints(api huma.API, options Options) {
	o := &operations{options}
	reads, writes := []int{401, 403, 429, 503}, []int{400, 401, 403, 408, 409, 413, 415, 429, 503}

	create := huma.Operation{
		OperationID: "createEndpoint", Method: http.MethodPost, Path: Base + "/endpoints", Tags: tags,
		Summary:       "Create an endpoint",
		Description:   "Events flow to it at once. The reply is its id, as a JSON string. `POST /endpoints`, without the base path, does the same.",
		DefaultStatus: http.StatusCreated, Errors: writes,
	}
	registerWithBody(api, create, bodyOf[Endpoint](examples()), o.create)
	create.OperationID, create.Path, create.Hidden = "createEndpointAlias", "/endpoints", true
	registerWithBody(api, create, bodyOf[Endpoint](examples()), o.create)

	huma.Register(api, huma.Operation{
		OperationID: "listEndpoints", Method: http.MethodGet, Path: Base + "/endpoints", Tags: tags,
		Summary: "List endpoints", Description: "Sorted by id; all of them without `$top`.",
		Parameters: listParameters(), Errors: append([]int{400}, reads...),
	}, o.list)
	huma.Register(api, huma.Operation{
		OperationID: "getEndpoint", Method: http.MethodGet, Path: Base + "/endpoints/{id}", Tags: tags,
		Summary: "Get an endpoint", Errors: append([]int{404}, reads...),
		Responses: map[string]*huma.Response{"304": {Description: "The endpoint and its state are as If-None-Match says"}},
	}, o.get)
	registerWithBody(api, huma.Operation{
		OperationID: "updateEndpoint", Method: http.MethodPut, Path: Base + "/endpoints/{id}", Tags: tags,
		Summary: "Replace an endpoint",
		Description: "Takes effect at once, on events that are queued already, too; new keys end a back-off. " +
			"A masked key (`SharedAccessKey=***`, or `***` with EventGrid) keeps the stored one, at the same host only. An unknown id is a 404.",
		DefaultStatus: http.StatusNoContent, Errors: append([]int{404, 412}, writes...),
	}, bodyOf[Endpoint](examples()), o.update)
	huma.Register(api, huma.Operation{
		OperationID: "deleteEndpoint", Method: http.MethodDelete, Path: Base + "/endpoints/{id}", Tags: tags,
		Summary:       "Delete an endpoint",
		Description:   "It gets no more events; what is queued is delivered within `shutdown.timeout`.",
		DefaultStatus: http.StatusNoContent, Errors: append([]int{400, 404, 412}, reads...),
	}, o.delete)
	huma.Register(api, huma.Operation{
		OperationID: "retryEndpoint", Method: http.MethodPost, Path: Base + "/endpoints/{id}/retry", Tags: tags,
		Summary:       "End a back-off now",
		Description:   "The next events go out at once, on every copy. Nothing changes for an endpoint that isn't backing off.",
		DefaultStatus: http.StatusOK, Errors: append([]int{404}, reads...),
	}, o.retry)
	o.registerSeek(api)
}

var tags = []string{"endpoints"}

// body is what a body of an operation looks like.
type body struct {
	is       reflect.Type
	examples map[string]*huma.Example
}

func bodyOf[T any](examples map[string]*huma.Example) body {
	return body{reflect.TypeFor[T](), examples}
}

// registerWithBody registers an operation with a body. huma documents the body and
// passes its bytes on.
func registerWithBody[I, O any](api huma.API, op huma.Operation, b body, handle func(context.Context, *I) (*O, error)) {
	op.MaxBodyBytes, op.SkipValidateBody = maxBody+1, true
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{}}
	huma.Register(api, op, handle)
	content := op.RequestBody.Content["application/json"]
	content.Schema = api.OpenAPI().Components.Schemas.Schema(b.is, true, "")
	content.Examples = b.examples
}

// examples returns the documented bodies, one for each kind of endpoint.
func examples() map[string]*huma.Example {
	amqp := func(kind, path, eventTypes string) *huma.Example {
		const namespace = "Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=POLICY;SharedAccessKey="
		entity := ""
		if eventTypes == endpoints.DeviceMessage {
			entity = ";EntityPath=" + path // mandatory for it
		}
		return &huma.Example{Value: map[string]any{
			"type": kind, "eventTypes": strings.Split(eventTypes, ","), "path": path,
			"connectionString": namespace + "PRIMARY_KEY" + entity, "secondaryConnectionString": namespace + "SECONDARY_KEY" + entity,
		}}
	}
	const changes = "SensorChange,SpaceChange,TopologyOperation"
	return map[string]*huma.Example{
		"EventHub":                  amqp("EventHub", "EVENT_HUB", changes),
		"EventHub of DeviceMessage": amqp("EventHub", "EVENT_HUB", endpoints.DeviceMessage),
		"ServiceBus":                amqp("ServiceBus", "TOPIC", changes),
		"EventGrid": {Value: map[string]any{
			"type": "EventGrid", "eventTypes": strings.Split(changes, ","), "path": "TOPIC.westus-1.eventgrid.azure.net",
			"connectionString": "PRIMARY_KEY", "secondaryConnectionString": "SECONDARY_KEY",
		}},
	}
}

func (o *operations) create(ctx context.Context, in *struct{ JSONBody }) (*created, error) {
	e, err := endpoints.Decode(in.RawBody, endpoints.Endpoint{}, o.Rules)
	if err != nil {
		return nil, fromStore(err)
	}
	e.ID = uuid.NewString()
	set, err := o.change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		return append(set, e), nil
	})
	if err != nil {
		return nil, err
	}
	e = asStored(set, e)
	o.audit(ctx, "endpoint created", e, nil)
	_, state := o.resource(e)
	return &created{Location: Base + "/endpoints/" + e.ID, ETag: etag(e, state), Body: e.ID}, nil
}

func (o *operations) list(_ context.Context, in *selection) (*listed, error) {
	page, next := in.of(slices.Clone(o.Store.Current()))
	out := &listed{Body: make([]Endpoint, len(page))}
	for i, e := range page {
		out.Body[i], _ = o.resource(e)
	}
	if next != "" {
		out.Link = "<" + next + `>; rel="next"`
	}
	return out, nil
}

func (o *operations) get(_ context.Context, in *struct {
	ByID
	IfNoneMatch []string `header:"If-None-Match" doc:"304 while the endpoint and its state are as they were"`
},
) (*found, error) {
	e, err := o.stored(in.ID)
	if err != nil {
		return nil, err
	}
	shown, state := o.resource(e)
	tag := etag(e, state)
	if matches(in.IfNoneMatch, tag, weakly) {
		return nil, failure(http.StatusNotModified, "").with("ETag", tag)
	}
	return &found{ETag: tag, Body: shown}, nil
}

func (o *operations) update(ctx context.Context, in *struct {
	ByID
	Condition
	JSONBody
},
) (*changed, error) {
	var after endpoints.Endpoint
	before, set, err := o.changeOne(ctx, in.ID, in.IfMatch, func(set []endpoints.Endpoint, i int) (_ []endpoints.Endpoint, err error) {
		after, err = endpoints.Decode(in.RawBody, set[i], o.Rules)
		set[i] = after
		return set, err
	})
	if err != nil {
		return nil, err
	}
	after = asStored(set, after)
	o.audit(ctx, "endpoint changed", after, endpoints.Diff(before, after).Fields)
	_, state := o.resource(after)
	return &changed{ETag: etag(after, state)}, nil
}

func (o *operations) delete(ctx context.Context, in *struct {
	ByID
	Condition
},
) (*struct{}, error) {
	gone, _, err := o.changeOne(ctx, in.ID, in.IfMatch, func(set []endpoints.Endpoint, i int) ([]endpoints.Endpoint, error) {
		return slices.Delete(set, i, i+1), nil
	})
	if err != nil {
		return nil, err
	}
	o.audit(ctx, "endpoint deleted", gone, nil)
	return nil, nil
}

func (o *operations) retry(ctx context.Context, in *ByID) (*retried, error) {
	e, err := o.stored(in.ID)
	if err != nil {
		return nil, err
	}
	out := new(retried)
	out.Body.Copies, out.Body.Notice = o.Fleet.Retry(ctx, e.ID)
	o.audit(ctx, "endpoint's back-off ended", e, nil)
	return out, nil
}

// change changes the set, and returns it as stored.
func (o *operations) change(ctx context.Context, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	set, err := o.Store.Change(ctx, edit)
	if err != nil {
		return nil, fromStore(err)
	}
	return set, nil
}

// changeOne changes the set where it has the endpoint with that id, and returns
// the endpoint as it was.
func (o *operations) changeOne(ctx context.Context, id string, ifMatch []string,
	edit func(set []endpoints.Endpoint, i int) ([]endpoints.Endpoint, error),
) (before endpoints.Endpoint, set []endpoints.Endpoint, err error) {
	set, err = o.change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		i := indexOf(set, strings.ToLower(id))
		if i < 0 {
			return nil, notFound(id)
		}
		before = set[i]
		if err := checkMatch(ifMatch, before); err != nil {
			return nil, err
		}
		return edit(set, i)
	})
	return before, set, err
}

// asStored returns the endpoint as it is in the set that was stored.
func asStored(set []endpoints.Endpoint, e endpoints.Endpoint) endpoints.Endpoint {
	if i := indexOf(set, e.ID); i >= 0 {
		e = set[i]
	}
	return e
}

func (o *operations) stored(id string) (endpoints.Endpoint, error) {
	set := o.Store.Current()
	i := indexOf(set, strings.ToLower(id))
	if i < 0 {
		return endpoints.Endpoint{}, notFound(id)
	}
	return set[i], nil
}

// notRunning is the reply for an endpoint of which nothing runs on this copy: it may be
// stored all the same, while the start waits for Kafka.
func (o *operations) notRunning(id string) *Error {
	if _, err := o.stored(id); err != nil {
		return notFound(id)
	}
	return failure(http.StatusServiceUnavailable, "the endpoint is stored, and doesn't run on this copy yet").with("Retry-After", "1")
}

func indexOf(set []endpoints.Endpoint, id string) int {
	return slices.IndexFunc(set, func(e endpoints.Endpoint) bool { return e.ID == id })
}

// audit logs who changed what. It logs the names of fields, not their values, which
// may be keys.
func (o *operations) audit(ctx context.Context, what string, e endpoints.Endpoint, fields []string, more ...zap.Field) {
	log := ctx.Value(auditKey{}).(*zap.Logger) // every request passes the handler
	if fields != nil {
		log = log.With(zap.Strings("fields", fields))
	}
	log.Info(what, append(more, zap.Bool("audit", true), zap.Inline(e))...)
}
