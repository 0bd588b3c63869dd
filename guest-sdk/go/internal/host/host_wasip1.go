package host

import (
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"

	"leasehold.dev/agent/internal/bindings/export_wit_world"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_calls"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_delegate"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_events"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_fs"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_job"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_metrics"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_model"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_net"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_output"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_tool"
	"leasehold.dev/agent/internal/bindings/leasehold_agent_types"
	_ "leasehold.dev/agent/internal/bindings/wit_exports" // the export itself
	witruntime "leasehold.dev/agent/internal/wit/runtime"
	"leasehold.dev/agent/internal/wit/types"
)

// Present says that there is a host.
const Present = true

// Serve has the host's call of the export answered.
func Serve(answer func(input string) (result string, code uint8, message string, ok bool)) {
	export_wit_world.Answer = answer
}

// A call of the host stops every goroutine until it returns. Then, while its
// result is read, the collector may let another goroutine run, and the memory
// of that result must not be released by it: one call at a time.
var border sync.Mutex

func cross[T any](call func() T) T {
	border.Lock()
	defer func() {
		witruntime.Release()
		border.Unlock()
	}()
	return call()
}

type failure = leasehold_agent_types.Error

func ask[T any](call func() types.Result[T, failure]) (value T, err error) {
	result := cross(call)
	if result.Tag() == types.ResultErr {
		failure := result.Err()
		return value, NewError(failure.Code, failure.Message)
	}
	return result.Ok(), nil
}

func do(call func() types.Result[types.Unit, failure]) error {
	_, err := ask(call)
	return err
}

// A string that is not UTF-8 would end the agent at the border. What is only
// for people to read is mended, and anything else is an error.
func mend(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func check(what string, texts ...string) error {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return NewError(invalidRequest, what+" is not UTF-8: "+mend(text))
		}
	}
	return nil
}

func option[T any](value *T) types.Option[T] {
	if value == nil {
		return types.None[T]()
	}
	return types.Some(*value)
}

func pointer[T any](option types.Option[T]) *T {
	if value, ok := option.Get(); ok {
		return &value
	}
	return nil
}

// Log emits a `log` event.
func Log(level uint8, message string) {
	message = mend(message)
	cross(func() types.Unit { leasehold_agent_events.Log(level, message); return types.Unit{} })
}

// Thought emits a `thought` event.
func Thought(text string) {
	text = mend(text)
	cross(func() types.Unit { leasehold_agent_events.Thought(text); return types.Unit{} })
}

// Status emits a `status` event.
func Status(phase string, message *string) error {
	if err := check("the phase", phase); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] {
		return leasehold_agent_events.Status(phase, mended(message))
	})
}

// Progress emits a `progress` event.
func Progress(current uint64, total *uint64, units, message *string) error {
	return do(func() types.Result[types.Unit, failure] {
		return leasehold_agent_events.Progress(current, option(total), mended(units), mended(message))
	})
}

func mended(text *string) types.Option[string] {
	if text == nil {
		return types.None[string]()
	}
	return types.Some(mend(*text))
}

// ArtifactRef emits an `artifact_ref` event.
func ArtifactRef(artifact Artifact) error {
	if err := check("the artifact", artifact.URI, artifact.ContentType); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] {
		return leasehold_agent_events.ArtifactRef(leasehold_agent_events.Reference{
			Uri:         artifact.URI,
			ContentType: artifact.ContentType,
			ByteSize:    option(artifact.ByteSize),
			Sha256:      mended(artifact.SHA256),
		})
	})
}

// Vendor emits an event of the agent's own kind.
func Vendor(kind, body string) error {
	if err := check("the event", kind, body); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] { return leasehold_agent_events.Vendor(kind, body) })
}

// Read reads a whole file.
func Read(path string) ([]byte, error) {
	if err := check("the path", path); err != nil {
		return nil, err
	}
	return ask(func() types.Result[[]byte, failure] { return leasehold_agent_fs.Read(path) })
}

// ReadRange reads a part of a file.
func ReadRange(path string, offset, length uint64) ([]byte, error) {
	if err := check("the path", path); err != nil {
		return nil, err
	}
	return ask(func() types.Result[[]byte, failure] { return leasehold_agent_fs.ReadRange(path, offset, length) })
}

// List lists a directory.
func List(path string) ([]Entry, error) {
	if err := check("the path", path); err != nil {
		return nil, err
	}
	found, err := ask(func() types.Result[[]leasehold_agent_fs.Entry, failure] {
		return leasehold_agent_fs.List(path)
	})
	entries := make([]Entry, len(found))
	for i, entry := range found {
		entries[i] = Entry{Name: entry.Name, Kind: entry.Kind, Size: entry.Size}
	}
	return entries, err
}

// Stat describes a file or directory.
func Stat(path string) (Metadata, error) {
	if err := check("the path", path); err != nil {
		return Metadata{}, err
	}
	found, err := ask(func() types.Result[leasehold_agent_fs.Metadata, failure] {
		return leasehold_agent_fs.Stat(path)
	})
	return Metadata{Kind: found.Kind, Size: found.Size, Modified: found.Modified}, err
}

// Write replaces or creates a file.
func Write(path string, contents []byte) error {
	if err := check("the path", path); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] { return leasehold_agent_fs.Write(path, contents) })
}

// Append adds to a file or creates it.
func Append(path string, contents []byte) error {
	if err := check("the path", path); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] { return leasehold_agent_fs.Append(path, contents) })
}

// CreateDir creates a directory.
func CreateDir(path string) error {
	if err := check("the path", path); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] { return leasehold_agent_fs.CreateDir(path) })
}

// Remove removes a file or an empty directory.
func Remove(path string) error {
	if err := check("the path", path); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] { return leasehold_agent_fs.Remove(path) })
}

// ID gives the job's id.
func ID() string { return cross(leasehold_agent_job.Id) }

// Agent gives the agent's name and version.
func Agent() string { return cross(leasehold_agent_job.Agent) }

// TraceID gives the job's trace id.
func TraceID() string { return cross(leasehold_agent_job.TraceId) }

// ExpiresAt gives the end of the lease, if it has one.
func ExpiresAt() *string { return pointer(cross(leasehold_agent_job.ExpiresAt)) }

// Budget gives what is left of each currency.
func Budget() []Pair {
	left := cross(leasehold_agent_job.Budget)
	pairs := make([]Pair, len(left))
	for i, pair := range left {
		pairs[i] = Pair{Name: pair.F0, Value: pair.F1}
	}
	return pairs
}

// Grants gives the patterns of a namespace.
func Grants(namespace string) []string {
	namespace = mend(namespace)
	return cross(func() []string { return leasehold_agent_job.Grants(namespace) })
}

// CancelRequested tells whether cancellation was asked for.
func CancelRequested() bool { return cross(leasehold_agent_job.CancelRequested) }

// Emit reports one figure.
func Emit(name, value string, unit *string, dimensions []Pair) error {
	if err := check("the metric", name, value); err != nil {
		return err
	}
	tuples := make([]types.Tuple2[string, string], len(dimensions))
	for i, pair := range dimensions {
		tuples[i] = types.Tuple2[string, string]{F0: mend(pair.Name), F1: mend(pair.Value)}
	}
	return do(func() types.Result[types.Unit, failure] {
		return leasehold_agent_metrics.Emit(name, value, mended(unit), tuples)
	})
}

// WriteText adds text to the result.
func WriteText(text string) error {
	if err := check("the text", text); err != nil {
		return err
	}
	return do(func() types.Result[types.Unit, failure] { return leasehold_agent_output.WriteText(text) })
}

// WriteBytes adds bytes to the result.
func WriteBytes(bytes []byte) error {
	return do(func() types.Result[types.Unit, failure] { return leasehold_agent_output.WriteBytes(bytes) })
}

// FinishOutput ends the result.
func FinishOutput() error { return do(leasehold_agent_output.Finish) }

// Call is one call under way. Nobody else holds it: it is dropped when it is
// finished, dropped or collected.
type Call struct {
	pending *leasehold_agent_calls.PendingCall
	id      string
}

func start(call func() types.Result[*leasehold_agent_calls.PendingCall, failure]) (*Call, error) {
	pending, err := ask(call)
	if err != nil {
		return nil, err
	}
	return &Call{pending: pending}, nil
}

func with[T any](call *Call, use func(*leasehold_agent_calls.PendingCall) types.Result[T, failure]) (T, error) {
	if call.pending == nil {
		var none T
		return none, NewError(invalidRequest, "the call was finished or closed before")
	}
	// The bindings hold only the number of the handle once they have read it.
	defer runtime.KeepAlive(call.pending)
	return ask(func() types.Result[T, failure] { return use(call.pending) })
}

func finish[T any](call *Call, end func(*leasehold_agent_calls.PendingCall) types.Result[T, failure]) (T, error) {
	value, err := with(call, end)
	call.pending = nil
	return value, err
}

// ID gives the call's id; after its end only if it was asked for before.
func (c *Call) ID() string {
	if c.id == "" && c.pending != nil {
		c.id = cross(c.pending.CallId)
		runtime.KeepAlive(c.pending)
	}
	return c.id
}

// Drop gives the call up, if it is not finished.
func (c *Call) Drop() {
	if c.pending != nil {
		c.pending.Drop()
		c.pending = nil
	}
}

// WaitAny waits until one of some calls has something to take.
func WaitAny(calls []*Call, timeoutMs *uint64) (*uint32, error) {
	pending := make([]*leasehold_agent_calls.PendingCall, len(calls))
	for i, call := range calls {
		if call.pending == nil {
			return nil, NewError(invalidRequest, "one of the calls was finished or closed before")
		}
		pending[i] = call.pending
	}
	defer runtime.KeepAlive(pending)
	first, err := ask(func() types.Result[types.Option[uint32], failure] {
		return leasehold_agent_calls.WaitAny(pending, option(timeoutMs))
	})
	return pointer(first), err
}

func request(request Request) (leasehold_agent_net.Request, error) {
	headers := make([]types.Tuple2[string, []byte], len(request.Headers))
	for i, header := range request.Headers {
		if err := check("a header's name", header.Name); err != nil {
			return leasehold_agent_net.Request{}, err
		}
		headers[i] = types.Tuple2[string, []byte]{F0: header.Name, F1: header.Value}
	}
	return leasehold_agent_net.Request{
		Method:    request.Method,
		Url:       request.URL,
		Headers:   headers,
		Body:      request.Body,
		Redirects: request.Redirects,
		TimeoutMs: option(request.TimeoutMs),
	}, check("the request", request.Method, request.URL)
}

func response(response leasehold_agent_net.Response) Response {
	headers := make([]Header, len(response.Headers))
	for i, header := range response.Headers {
		headers[i] = Header{Name: header.F0, Value: header.F1}
	}
	return Response{Status: response.Status, URL: response.Url, Headers: headers, Body: response.Body}
}

// Fetch makes a request.
func Fetch(asked Request) (Response, error) {
	lowered, err := request(asked)
	if err != nil {
		return Response{}, err
	}
	got, err := ask(func() types.Result[leasehold_agent_net.Response, failure] {
		return leasehold_agent_net.Fetch(lowered)
	})
	return response(got), err
}

// StartFetch starts a request.
func StartFetch(asked Request) (*Call, error) {
	lowered, err := request(asked)
	if err != nil {
		return nil, err
	}
	return start(func() types.Result[*leasehold_agent_calls.PendingCall, failure] {
		return leasehold_agent_net.Start(lowered)
	})
}

// FinishFetch waits for what StartFetch began.
func FinishFetch(call *Call) (Response, error) {
	got, err := finish(call, leasehold_agent_net.Finish)
	return response(got), err
}

// StreamFetch starts a request whose body comes in parts.
func StreamFetch(asked Request) (*Call, error) {
	lowered, err := request(asked)
	if err != nil {
		return nil, err
	}
	return start(func() types.Result[*leasehold_agent_calls.PendingCall, failure] {
		return leasehold_agent_net.StartStream(lowered)
	})
}

// Head waits for the beginning of the response.
func Head(call *Call) (Response, error) {
	got, err := with(call, leasehold_agent_net.Head)
	return response(got), err
}

// NextPart waits for the next part of the body; nil at its end.
func NextPart(call *Call) ([]byte, error) {
	part, err := with(call, leasehold_agent_net.Next)
	if part, ok := part.Get(); ok && part == nil {
		return []byte{}, err // a part that is empty is not the end
	}
	bytes, _ := part.Get()
	return bytes, err
}

// Tools lists the tools.
func Tools() ([]Tool, error) {
	found, err := ask(leasehold_agent_tool.List)
	tools := make([]Tool, len(found))
	for i, tool := range found {
		tools[i] = Tool{
			Name:         tool.Name,
			Description:  tool.Description,
			InputSchema:  tool.InputSchema,
			OutputSchema: pointer(tool.OutputSchema),
		}
	}
	return tools, err
}

// CallTool calls a tool.
func CallTool(name, arguments string) (string, error) {
	if err := check("the call", name, arguments); err != nil {
		return "", err
	}
	return ask(func() types.Result[string, failure] { return leasehold_agent_tool.Call(name, arguments) })
}

// StartTool starts a call of a tool.
func StartTool(name, arguments string) (*Call, error) {
	if err := check("the call", name, arguments); err != nil {
		return nil, err
	}
	return start(func() types.Result[*leasehold_agent_calls.PendingCall, failure] {
		return leasehold_agent_tool.Start(name, arguments)
	})
}

// FinishTool waits for what StartTool began.
func FinishTool(call *Call) (string, error) { return finish(call, leasehold_agent_tool.Finish) }

// Models lists the models.
func Models() ([]string, error) { return ask(leasehold_agent_model.List) }

// Complete asks a model.
func Complete(model, request string) (string, error) {
	if err := check("the request", model, request); err != nil {
		return "", err
	}
	return ask(func() types.Result[string, failure] { return leasehold_agent_model.Complete(model, request) })
}

// StartComplete starts to ask a model.
func StartComplete(model, request string) (*Call, error) {
	if err := check("the request", model, request); err != nil {
		return nil, err
	}
	return start(func() types.Result[*leasehold_agent_calls.PendingCall, failure] {
		return leasehold_agent_model.Start(model, request)
	})
}

// StreamComplete asks a model for an answer in parts.
func StreamComplete(model, request string) (*Call, error) {
	if err := check("the request", model, request); err != nil {
		return nil, err
	}
	return start(func() types.Result[*leasehold_agent_calls.PendingCall, failure] {
		return leasehold_agent_model.StartStream(model, request)
	})
}

// FinishComplete waits for what StartComplete or StreamComplete began.
func FinishComplete(call *Call) (string, error) { return finish(call, leasehold_agent_model.Finish) }

// NextChunk waits for the next part of an answer; nil after the last.
func NextChunk(call *Call) (*string, error) {
	chunk, err := with(call, leasehold_agent_model.Next)
	return pointer(chunk), err
}

func task(task Task) (leasehold_agent_delegate.Task, error) {
	lease := make([]types.Tuple2[string, []string], len(task.Lease))
	for i, grant := range task.Lease {
		if err := check("the lease", append([]string{grant.Namespace}, grant.Patterns...)...); err != nil {
			return leasehold_agent_delegate.Task{}, err
		}
		lease[i] = types.Tuple2[string, []string]{F0: grant.Namespace, F1: grant.Patterns}
	}
	return leasehold_agent_delegate.Task{
		Agent:         task.Agent,
		Input:         task.Input,
		Lease:         lease,
		ExpiresAt:     option(task.ExpiresAt),
		MaxRuntimeSec: option(task.MaxRuntimeSec),
	}, check("the task", task.Agent, task.Input)
}

// Delegate has a task done.
func Delegate(wanted Task) (string, error) {
	lowered, err := task(wanted)
	if err != nil {
		return "", err
	}
	return ask(func() types.Result[string, failure] { return leasehold_agent_delegate.Run(lowered) })
}

// StartTask starts a task.
func StartTask(wanted Task) (*Call, error) {
	lowered, err := task(wanted)
	if err != nil {
		return nil, err
	}
	return start(func() types.Result[*leasehold_agent_calls.PendingCall, failure] {
		return leasehold_agent_delegate.Start(lowered)
	})
}

// StreamTask starts a task and has its events come in.
func StreamTask(wanted Task) (*Call, error) {
	lowered, err := task(wanted)
	if err != nil {
		return nil, err
	}
	return start(func() types.Result[*leasehold_agent_calls.PendingCall, failure] {
		return leasehold_agent_delegate.StartStream(lowered)
	})
}

// FinishTask waits for what StartTask or StreamTask began.
func FinishTask(call *Call) (string, error) { return finish(call, leasehold_agent_delegate.Finish) }

// JobID gives the id of the job that does a task.
func JobID(call *Call) (string, error) { return with(call, leasehold_agent_delegate.JobId) }

// NextEvent waits for the next event of that job; nil once it has ended.
func NextEvent(call *Call) (*string, error) {
	event, err := with(call, leasehold_agent_delegate.NextEvent)
	return pointer(event), err
}
