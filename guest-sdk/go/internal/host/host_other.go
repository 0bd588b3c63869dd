//go:build !wasip1

package host

// Present says that there is a host.
const Present = false

// Serve has the host's call of the export answered; here none comes.
func Serve(func(input string) (result string, code uint8, message string, ok bool)) {}

const absent = ": there is no host here, only in a component that `leasehold build` made"

func fail(what string) error { return NewError(internalError, what+absent) }

// What cannot fail in a component has no error to return here.
func stop(what string) { panic("leasehold: " + what + absent) }

// Call is one call under way.
type Call struct {
	// Name is for tests to know it by.
	Name string
	// Dropped counts how often it was given up.
	Dropped int
}

// ID gives the call's id.
func (c *Call) ID() string { return c.Name }

// Drop gives the call up.
func (c *Call) Drop() { c.Dropped++ }

// The functions of the contract, which a test may set.
var (
	Log     = func(uint8, string) { stop("events.log") }
	Thought = func(string) { stop("events.thought") }
	Status  = func(string, *string) error { return fail("events.status") }

	Progress = func(uint64, *uint64, *string, *string) error { return fail("events.progress") }

	ArtifactRef = func(Artifact) error { return fail("events.artifact-ref") }
	Vendor      = func(string, string) error { return fail("events.vendor") }

	Read      = func(string) ([]byte, error) { return nil, fail("fs.read") }
	ReadRange = func(string, uint64, uint64) ([]byte, error) { return nil, fail("fs.read-range") }
	List      = func(string) ([]Entry, error) { return nil, fail("fs.list") }
	Stat      = func(string) (Metadata, error) { return Metadata{}, fail("fs.stat") }
	Write     = func(string, []byte) error { return fail("fs.write") }
	Append    = func(string, []byte) error { return fail("fs.append") }
	CreateDir = func(string) error { return fail("fs.create-dir") }
	Remove    = func(string) error { return fail("fs.remove") }

	ID              = func() string { stop("job.id"); return "" }
	Agent           = func() string { stop("job.agent"); return "" }
	TraceID         = func() string { stop("job.trace-id"); return "" }
	ExpiresAt       = func() *string { stop("job.expires-at"); return nil }
	Budget          = func() []Pair { stop("job.budget"); return nil }
	Grants          = func(string) []string { stop("job.grants"); return nil }
	CancelRequested = func() bool { stop("job.cancel-requested"); return false }

	Emit = func(string, string, *string, []Pair) error { return fail("metrics.emit") }

	WriteText    = func(string) error { return fail("output.write-text") }
	WriteBytes   = func([]byte) error { return fail("output.write-bytes") }
	FinishOutput = func() error { return fail("output.finish") }

	WaitAny = func([]*Call, *uint64) (*uint32, error) { return nil, fail("calls.wait-any") }

	Fetch       = func(Request) (Response, error) { return Response{}, fail("net.fetch") }
	StartFetch  = func(Request) (*Call, error) { return nil, fail("net.start") }
	FinishFetch = func(*Call) (Response, error) { return Response{}, fail("net.finish") }
	StreamFetch = func(Request) (*Call, error) { return nil, fail("net.start-stream") }
	Head        = func(*Call) (Response, error) { return Response{}, fail("net.head") }
	NextPart    = func(*Call) ([]byte, error) { return nil, fail("net.next") }

	Tools      = func() ([]Tool, error) { return nil, fail("tool.list") }
	CallTool   = func(string, string) (string, error) { return "", fail("tool.call") }
	StartTool  = func(string, string) (*Call, error) { return nil, fail("tool.start") }
	FinishTool = func(*Call) (string, error) { return "", fail("tool.finish") }

	Models         = func() ([]string, error) { return nil, fail("model.list") }
	Complete       = func(string, string) (string, error) { return "", fail("model.complete") }
	StartComplete  = func(string, string) (*Call, error) { return nil, fail("model.start") }
	StreamComplete = func(string, string) (*Call, error) { return nil, fail("model.start-stream") }
	FinishComplete = func(*Call) (string, error) { return "", fail("model.finish") }
	NextChunk      = func(*Call) (*string, error) { return nil, fail("model.next") }

	Delegate   = func(Task) (string, error) { return "", fail("delegate.run") }
	StartTask  = func(Task) (*Call, error) { return nil, fail("delegate.start") }
	StreamTask = func(Task) (*Call, error) { return nil, fail("delegate.start-stream") }
	FinishTask = func(*Call) (string, error) { return "", fail("delegate.finish") }
	JobID      = func(*Call) (string, error) { return "", fail("delegate.job-id") }
	NextEvent  = func(*Call) (*string, error) { return nil, fail("delegate.next-event") }
)
