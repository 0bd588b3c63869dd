// Package nethttp makes a [net/http.Client] of what the lease grants, for code
// and libraries that want one. A request needs `net.fetch` on its URL.
//
//	client := &http.Client{Transport: nethttp.Transport{}}
//	response, err := client.Get("https://example.com/")
//
// net/http brings TLS and HTTP/2, which nothing here uses, and makes a component
// several times as large. Package net of the SDK does not.
package nethttp

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"leasehold.dev/agent/net"
)

// Transport is an [http.RoundTripper] through the host. The body of a response
// is read as it comes, and is to be closed.
//
// A client follows redirects by itself, and each needs a grant of its own. The
// deadline of a request's context is the host's timeout. A context that is
// cancelled is looked at before the request, and not during it: nothing of the
// agent runs while the host waits for the beginning of the response.
type Transport struct{}

// RoundTrip makes one request. A refusal is an [agent.Error], which errors.Is
// and errors.As find in the [url.Error] that a client gives.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body != nil {
		defer request.Body.Close()
	}
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	asked := net.Request{Method: request.Method, URL: request.URL.String(), Redirects: -1}
	asked.Header = net.Header(request.Header.Clone())
	if deadline, ok := request.Context().Deadline(); ok {
		asked.Timeout = max(time.Until(deadline), time.Millisecond)
	}
	if request.Body != nil {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, err
		}
		asked.Body = body
	}
	stream, err := net.Open(asked)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status:        strings.TrimSpace(fmt.Sprintf("%d %s", stream.Head.Status, http.StatusText(stream.Head.Status))),
		StatusCode:    stream.Head.Status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header(stream.Head.Header),
		Body:          stream,
		ContentLength: -1,
		Request:       request,
	}, nil
}
