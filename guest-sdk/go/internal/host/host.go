// Package host is the one way from the SDK to its host: a function for each
// function of the contract (wit/), with Go's types and errors.
//
// In a component they are functions and call the bindings; what an agent does
// not call is then not linked, and its component does not import it. Elsewhere
// they are variables that fail, and that a test may set.
package host

// NewError makes the error of a code, counted as in the contract, and a
// message. Package agent, which declares the error, sets it.
var NewError = func(code uint8, message string) error {
	panic("the package leasehold.dev/agent is not imported")
}

// Codes of the errors that are made on this side of the border.
const (
	invalidRequest uint8 = 9
	internalError  uint8 = 10
)

// Levels of a log event.
const (
	LevelDebug uint8 = iota
	LevelInfo
	LevelWarn
	LevelError
)

// Kinds of what has a name in a file system.
const (
	KindFile uint8 = iota
	KindDirectory
	KindOther
)

// Artifact is what was made and can be found at a URI.
type Artifact struct {
	URI, ContentType string
	ByteSize         *uint64
	SHA256           *string
}

// Metadata is what is known of a file or directory.
type Metadata struct {
	Kind     uint8
	Size     uint64
	Modified string
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Kind uint8
	Size uint64
}

// Pair is a name and its value.
type Pair struct{ Name, Value string }

// Header is one line of a request's or a response's head.
type Header struct {
	Name  string
	Value []byte
}

// Request is an HTTP request.
type Request struct {
	Method, URL string
	Headers     []Header
	Body        []byte
	Redirects   uint32
	TimeoutMs   *uint64
}

// Response is the answer to a Request.
type Response struct {
	Status  uint16
	URL     string
	Headers []Header
	Body    []byte
}

// Tool is a tool as its host describes it.
type Tool struct {
	Name, Description, InputSchema string
	OutputSchema                   *string
}

// Grant is a namespace of a lease with its patterns.
type Grant struct {
	Namespace string
	Patterns  []string
}

// Task is a part of the job for another agent.
type Task struct {
	Agent, Input  string
	Lease         []Grant
	ExpiresAt     *string
	MaxRuntimeSec *uint32
}
