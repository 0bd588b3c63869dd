//go:build !wasip1

package net

import (
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

func TestARequestIsTheSameEachTime(t *testing.T) {
	header := Header{}
	header.Set("x-b", "1")
	header.Add("X-B", "2")
	header.Set("content-TYPE", "text/plain")
	if header.Get("CONTENT-type") != "text/plain" || header.Get("none") != "" {
		t.Errorf("%v", header)
	}
	for range 20 {
		lowered := Request{Method: "PUT", URL: "u", Header: header, Timeout: 1500 * time.Microsecond}.lower()
		var lines []string
		for _, line := range lowered.Headers {
			lines = append(lines, line.Name+": "+string(line.Value))
		}
		if !slices.Equal(lines, []string{"content-type: text/plain", "x-b: 1", "x-b: 2"}) {
			t.Fatalf("%q", lines)
		}
		if lowered.Method != "PUT" || lowered.Redirects != 10 || *lowered.TimeoutMs != 1 {
			t.Fatalf("%+v", lowered)
		}
	}
	for redirects, expected := range map[int]uint32{0: 10, -1: 0, 3: 3} {
		lowered := Request{URL: "u", Redirects: redirects}.lower()
		if lowered.Redirects != expected || lowered.Method != "GET" || lowered.TimeoutMs != nil {
			t.Errorf("%+v", lowered)
		}
	}
	posted, err := JSON("POST", "u", map[string]string{"a": "<b>"})
	if err != nil || string(posted.Body) != `{"a":"<b>"}` || posted.Header.Get("content-type") != "application/json" {
		t.Errorf("%+v, %v", posted, err)
	}
	if _, err := JSON("POST", "u", make(chan int)); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
}

func TestAResponseIsReadAndJudged(t *testing.T) {
	response := lift(host.Response{
		Status:  404,
		URL:     "http://x/y",
		Headers: []host.Header{{Name: "set-cookie", Value: []byte("a")}, {Name: "Set-Cookie", Value: []byte("b")}},
		Body:    []byte(`{"n": 1}`),
	})
	var body struct{ N int }
	if err := response.JSON(&body); err != nil || body.N != 1 {
		t.Errorf("%v", err)
	}
	if !slices.Equal(response.Header["Set-Cookie"], []string{"a", "b"}) {
		t.Errorf("%v", response.Header)
	}
	if err := response.JSON(&[]int{}); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
	if err := response.Successful(); err == nil || err.Error() != "internal-error: http://x/y answered 404" {
		t.Errorf("%v", err)
	}
	if err := (&Response{Status: 204}).Successful(); err != nil {
		t.Error(err)
	}
}

// pretend makes a host whose body comes in these parts.
func pretend(t *testing.T, end error, parts ...string) *host.Call {
	stream, head, next := host.StreamFetch, host.Head, host.NextPart
	t.Cleanup(func() { host.StreamFetch, host.Head, host.NextPart = stream, head, next })
	call := &host.Call{}
	host.StreamFetch = func(host.Request) (*host.Call, error) { return call, nil }
	host.Head = func(*host.Call) (host.Response, error) { return host.Response{Status: 200}, nil }
	host.NextPart = func(*host.Call) ([]byte, error) {
		if len(parts) == 0 {
			return nil, end
		}
		part := []byte(parts[0])
		parts = parts[1:]
		return part, nil
	}
	return call
}

func TestAStreamIsAReader(t *testing.T) {
	call := pretend(t, nil, "one ", "", "two ", "three")
	stream, err := Open(Request{URL: "u"})
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(stream, []byte("one two three")); err != nil {
		t.Error(err)
	}
	stream.Close()
	if _, err := stream.Read(make([]byte, 1)); err != io.EOF || call.Dropped != 1 {
		t.Errorf("%v, dropped %d times", err, call.Dropped)
	}
}

func TestAStreamThatBreaksOrIsClosedSaysSo(t *testing.T) {
	pretend(t, host.NewError(10, "the connection broke"), "one")
	stream, _ := Open(Request{URL: "u"})
	if text, err := io.ReadAll(stream); string(text) != "one" || !errors.Is(err, agent.InternalError) {
		t.Errorf("%s, %v", text, err)
	}
	pretend(t, nil, "one", "two")
	stream, _ = Open(Request{URL: "u"})
	stream.Read(make([]byte, 1))
	stream.Close()
	if _, err := stream.Read(make([]byte, 1)); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}

	call := pretend(t, nil)
	host.Head = func(*host.Call) (host.Response, error) { return host.Response{}, host.NewError(0, "no") }
	if _, err := Open(Request{URL: "u"}); !errors.Is(err, agent.PermissionDenied) || call.Dropped != 1 {
		t.Errorf("%v, dropped %d times", err, call.Dropped)
	}
}
