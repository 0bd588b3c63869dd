//go:build !wasip1

package nethttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

// pretend makes a host that answers with the request's body, or redirects.
func pretend(t *testing.T) *[]host.Request {
	stream, head, next := host.StreamFetch, host.Head, host.NextPart
	t.Cleanup(func() { host.StreamFetch, host.Head, host.NextPart = stream, head, next })
	asked := new([]host.Request)
	ended := false
	host.StreamFetch = func(request host.Request) (*host.Call, error) {
		*asked = append(*asked, request)
		if strings.HasSuffix(request.URL, "/private") {
			return nil, host.NewError(0, "the lease grants no net.fetch")
		}
		ended = false
		return &host.Call{}, nil
	}
	host.Head = func(*host.Call) (host.Response, error) {
		if last := (*asked)[len(*asked)-1]; strings.HasSuffix(last.URL, "/moved") {
			location := []host.Header{{Name: "location", Value: []byte("/here")}}
			return host.Response{Status: 302, URL: last.URL, Headers: location}, nil
		}
		return host.Response{Status: 200}, nil
	}
	host.NextPart = func(*host.Call) ([]byte, error) {
		if ended {
			return nil, nil
		}
		ended = true
		return (*asked)[len(*asked)-1].Body, nil
	}
	return asked
}

func TestAClientOfNetHTTPGoesThroughTheHost(t *testing.T) {
	asked := pretend(t)
	client := &http.Client{Transport: Transport{}}
	response, err := client.Post("http://x/echo", "text/plain", strings.NewReader("said"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); string(body) != "said" || err != nil || response.Status != "200 OK" {
		t.Errorf("%s, %v, %s", body, err, response.Status)
	}
	if first := (*asked)[0]; first.Method != "POST" || first.Redirects != 0 || first.Headers[0].Name != "content-type" {
		t.Errorf("%+v", first)
	}

	*asked = nil
	response, err = client.Get("http://x/moved")
	if err != nil || len(*asked) != 2 || (*asked)[1].URL != "http://x/here" {
		t.Fatalf("%v, %v", err, *asked)
	}
	response.Body.Close()

	if _, err := client.Get("http://x/private"); !errors.Is(err, agent.PermissionDenied) {
		t.Errorf("%v", err)
	}
}

func TestADeadlineIsTheHostsTimeout(t *testing.T) {
	asked := pretend(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	request, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
	response, err := Transport{}.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if ms := *(*asked)[0].TimeoutMs; ms < 50_000 || ms > 60_000 {
		t.Errorf("%d ms", ms)
	}
	cancel()
	if _, err := (Transport{}).RoundTrip(request); !errors.Is(err, context.Canceled) || len(*asked) != 1 {
		t.Errorf("%v after %d requests", err, len(*asked))
	}
}
