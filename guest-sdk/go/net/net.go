// Package net is HTTP requests the lease grants. A request needs `net.fetch` on
// its URL, whatever the method, and so does each redirect it follows.
//
// A status such as 404 is a [Response] and no error. For code that wants a
// [net/http.Client] there is package nethttp; it makes the component several
// times as large.
package net

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/calls"
	"leasehold.dev/agent/internal/host"
	"leasehold.dev/agent/internal/text"
)

// redirects is how many a request follows that does not say.
const redirects = 10

// Header is the lines of a head, by name. Names are kept as net/http keeps
// them, `Content-Type`; the methods take any spelling.
type Header map[string][]string

// Get gives the first value of a name, or "".
func (h Header) Get(name string) string {
	if values := h[canonical(name)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set replaces the values of a name.
func (h Header) Set(name, value string) { h[canonical(name)] = []string{value} }

// Add adds a value to those of a name.
func (h Header) Add(name, value string) {
	name = canonical(name)
	h[name] = append(h[name], value)
}

// canonical writes a name's first letter, and each after a hyphen, large.
func canonical(name string) string {
	bytes := []byte(name)
	large := true
	for i, letter := range bytes {
		switch {
		case large && 'a' <= letter && letter <= 'z':
			bytes[i] = letter - 'a' + 'A'
		case !large && 'A' <= letter && letter <= 'Z':
			bytes[i] = letter - 'A' + 'a'
		}
		large = letter == '-'
	}
	return string(bytes)
}

// Request is what to ask for. The host sets `host`, `content-length` and what
// belongs to the connection; a request that names such a header is
// [agent.InvalidRequest].
type Request struct {
	// Method is such as `POST`; "" is `GET`.
	Method string
	URL    string
	Header Header
	Body   []byte
	// Redirects is how many are followed at most; 0 is 10, and a negative
	// number is none, which gives the redirect itself.
	Redirects int
	// Timeout is within the host's own limit (default 60 s), in whole
	// milliseconds; 0 is that limit.
	Timeout time.Duration
}

// JSON makes a request with a value as its body, in JSON.
func JSON(method, url string, body any) (Request, error) {
	value, err := text.Of(url, body)
	header := Header{"Content-Type": {"application/json"}}
	return Request{Method: method, URL: url, Header: header, Body: []byte(value)}, err
}

func (r Request) lower() host.Request {
	lowered := host.Request{Method: r.Method, URL: r.URL, Body: r.Body, Redirects: redirects}
	if r.Method == "" {
		lowered.Method = "GET"
	}
	// A map has no order, and a job that is replayed must ask for the same.
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[name] {
			lowered.Headers = append(lowered.Headers, host.Header{Name: strings.ToLower(name), Value: []byte(value)})
		}
	}
	if r.Redirects != 0 {
		lowered.Redirects = uint32(max(r.Redirects, 0))
	}
	if r.Timeout > 0 {
		ms := uint64(max(r.Timeout.Milliseconds(), 1))
		lowered.TimeoutMs = &ms
	}
	return lowered
}

// Response is what came back.
type Response struct {
	// Status is such as 200.
	Status int
	// URL is where it came from, after redirects.
	URL    string
	Header Header
	// Body is nil in the head of a [Stream].
	Body []byte
}

func lift(response host.Response) *Response {
	header := make(Header, len(response.Headers))
	for _, line := range response.Headers {
		header.Add(line.Name, string(line.Value))
	}
	return &Response{Status: int(response.Status), URL: response.URL, Header: header, Body: response.Body}
}

// JSON reads the body into what a pointer points to. A body of another form is
// [agent.InvalidRequest].
func (r *Response) JSON(value any) error {
	if err := json.Unmarshal(r.Body, value); err != nil {
		return agent.Errorf(agent.InvalidRequest, "%s: %v", r.URL, err)
	}
	return nil
}

// Successful makes an error of a status that is not one of success:
// [agent.InternalError], saying which.
func (r *Response) Successful() error {
	if 200 <= r.Status && r.Status <= 299 {
		return nil
	}
	return agent.Errorf(agent.InternalError, "%s answered %d", r.URL, r.Status)
}

// Get gets what is at a URL.
//
//	page, err := net.Get("https://example.com/")
func Get(url string) (*Response, error) { return Fetch(Request{URL: url}) }

// Fetch makes a request and waits for the whole response.
//
// It fails with [agent.PermissionDenied]; with [agent.TooLarge] for a body over
// the host's limit (default 16 MiB), for which there is [Open]; with
// [agent.Timeout]; with [agent.InternalError] if nobody answers.
func Fetch(request Request) (*Response, error) {
	response, err := host.Fetch(request.lower())
	if err != nil {
		return nil, err
	}
	return lift(response), nil
}

// Start starts what [Fetch] does, and goes on meanwhile. It fails with what is
// known at once.
func Start(request Request) (*calls.Pending[*Response], error) {
	call, err := host.StartFetch(request.lower())
	if err != nil {
		return nil, err
	}
	return calls.NewPending(call, func(call *host.Call) (*Response, error) {
		response, err := host.FinishFetch(call)
		if err != nil {
			return nil, err
		}
		return lift(response), nil
	}), nil
}

// Stream is a response whose body is read as it comes, of any size: an
// [io.ReadCloser].
type Stream struct {
	// Head is the response without its body.
	Head *Response
	call *host.Call
	// part is what was fetched and not read.
	part []byte
	err  error
}

// Open makes a request, and waits for the beginning of the response. The stream
// is to be closed.
func Open(request Request) (*Stream, error) {
	call, err := host.StreamFetch(request.lower())
	if err != nil {
		return nil, err
	}
	head, err := host.Head(call)
	if err != nil {
		call.Drop()
		return nil, err
	}
	stream := &Stream{Head: lift(head), call: call}
	stream.Head.Body = nil
	return stream, nil
}

// NextPart waits for the next part of the body; [io.EOF] at its end. It is what
// the server sent at once, of any length.
func (s *Stream) NextPart() ([]byte, error) {
	for len(s.part) == 0 && s.err == nil {
		s.part, s.err = host.NextPart(s.call)
		if s.part == nil && s.err == nil {
			s.err = io.EOF
		}
	}
	part := s.part
	s.part = nil
	if len(part) > 0 {
		return part, nil
	}
	return nil, s.err
}

// Read reads the next bytes of the body.
func (s *Stream) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	part, err := s.NextPart()
	if err != nil {
		return 0, err
	}
	read := copy(into, part)
	s.part = part[read:]
	return read, nil
}

// Close gives the rest of the body up, and the connection. It does not fail.
func (s *Stream) Close() error {
	s.call.Drop()
	if s.err == nil {
		s.err = agent.Errorf(agent.InvalidRequest, "the stream was closed")
	}
	s.part = nil
	return nil
}

// HostCall is for the other packages of the SDK: a stream can be waited for.
func (s *Stream) HostCall() *host.Call { return s.call }
