//go:build !wasip1

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"leasehold.dev/agent/internal/host"
)

type order struct {
	Name  string            `json:"name"`
	Count *uint8            `json:"count"`
	Tags  []string          `json:"tags"`
	Inner struct{ On bool } `json:"inner"`
	Data  []byte            `json:"data"`
	More  map[string]int    `json:"more"`
}

func TestAnAgentGetsItsTypeAndAWrongInputGetsTheReason(t *testing.T) {
	echo := func(_ context.Context, in order) (string, error) { return in.Name + " <é>", nil }
	for _, row := range []struct{ input, result, message string }{
		{`{"name": "Ada", "unknown": []}`, `"Ada <é>"`, ""},
		{`{}`, `" <é>"`, ""},
		{`null`, `" <é>"`, ""},
		{`{"name": 7}`, "", "input: name: is a number and not a string"},
		{`{"name": ["x"]}`, "", "input: name: is an array and not a string"},
		{`{"name": true}`, "", "input: name: is a boolean and not a string"},
		{`{"count": "2"}`, "", "input: count: is a string and not a whole number that fits uint8"},
		{`{"count": 256}`, "", "input: count: is the number 256 and not a whole number that fits uint8"},
		{`{"inner": {"On": 1}}`, "", "input: inner.On: is a number and not a boolean"},
		{`{"tags": {}}`, "", "input: tags: is an object and not an array"},
		{`{"data": 1}`, "", "input: data: is a number and not a string of base64"},
		{`{"more": []}`, "", "input: more: is an array and not an object"},
		{`[1]`, "", "input: is an array and not an object"},
		{`"x"`, "", "input: is a string and not an object"},
	} {
		result, err := answer(context.Background(), row.input, echo)
		var message string
		if err != nil {
			if CodeOf(err) != InvalidRequest {
				t.Errorf("%s: the code is %s", row.input, CodeOf(err))
			}
			message = messageOf(err)
		}
		if result != row.result || message != row.message {
			t.Errorf("%s: %q, %q", row.input, result, message)
		}
	}
	if _, err := answer(context.Background(), `{"name": `, echo); CodeOf(err) != InvalidRequest {
		t.Errorf("half an input: %v", err)
	}
}

func TestTextOfJSONGoesThroughUntouched(t *testing.T) {
	same := func(_ context.Context, in json.RawMessage) (json.RawMessage, error) { return in, nil }
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for _, text := range []string{`null`, `{"a":[1,2.50,"<\u00e9>"]}`, deep} {
		if result, err := answer(context.Background(), text, same); result != text || err != nil {
			t.Errorf("%s: %s, %v", text, result, err)
		}
	}
	silent := func(context.Context, *order) (any, error) { return nil, nil }
	if result, err := answer(context.Background(), "null", silent); result != "null" || err != nil {
		t.Errorf("%s, %v", result, err)
	}
	wrong := func(context.Context, any) (chan int, error) { return make(chan int), nil }
	if _, err := answer(context.Background(), "null", wrong); CodeOf(err) != InternalError {
		t.Errorf("a channel is no result: %v", err)
	}
}

func TestAnErrorHasOneCodeWhateverIsAroundIt(t *testing.T) {
	missing := host.NewError(11, "no chapter 7")
	for _, row := range []struct {
		err     error
		code    Code
		message string
	}{
		{missing, NotFound, "no chapter 7"},
		{fmt.Errorf("reading: %w", missing), NotFound, "reading: not-found: no chapter 7"},
		{&fs.PathError{Op: "open", Path: "x", Err: missing}, NotFound, "open x: not-found: no chapter 7"},
		{Timeout, Timeout, "timeout"},
		{fmt.Errorf("too slow: %w", Timeout), Timeout, "too slow: timeout"},
		{context.Canceled, Cancelled, "context canceled"},
		{context.DeadlineExceeded, Timeout, "context deadline exceeded"},
		{fs.ErrNotExist, NotFound, "file does not exist"},
		{errors.New("plain"), InternalError, "plain"},
		{host.NewError(200, "of a later host"), InternalError, "of a later host"},
		{Code("made-up"), "made-up", "made-up"},
	} {
		if CodeOf(row.err) != row.code || messageOf(row.err) != row.message {
			t.Errorf("%v: %s, %q", row.err, CodeOf(row.err), messageOf(row.err))
		}
	}
	if Code("made-up").number() != InternalError.number() {
		t.Error("a code that is not in the contract is told as one that is")
	}
}

func TestErrorsAreFoundByCodeAndByWhatTheStandardLibraryCallsThem(t *testing.T) {
	for number, code := range codes {
		err := fmt.Errorf("around: %w", host.NewError(uint8(number), "x"))
		if !errors.Is(err, code) || code.number() != uint8(number) {
			t.Errorf("%s is not number %d", code, number)
		}
		for _, other := range codes {
			if other != code && errors.Is(err, other) {
				t.Errorf("%s is taken for %s", code, other)
			}
		}
		for _, row := range standard {
			if errors.Is(err, row.err) != (row.code == code) {
				t.Errorf("%s and %v", code, row.err)
			}
		}
	}
	ends := 0
	for _, code := range codes {
		if code.EndsTheJob() {
			ends++
		}
	}
	if ends != 3 {
		t.Errorf("%d codes end the job", ends)
	}
}

func TestAPanicIsLoggedWithTheAgentsFramesAndIsAnInternalError(t *testing.T) {
	var logged []string
	log := host.Log
	host.Log = func(level uint8, message string) { logged = append(logged, fmt.Sprint(level, " ", message)) }
	defer func() { host.Log = log }()

	_, err := guarded("null", panicking)
	if CodeOf(err) != InternalError || messageOf(err) != "panic: assignment to entry in nil map" {
		t.Errorf("%v", err)
	}
	if len(logged) != 1 || !strings.HasPrefix(logged[0], "3 panic: assignment to entry in nil map\n") {
		t.Fatalf("%q", logged)
	}
	if !strings.Contains(logged[0], "agent.panicking") || !strings.Contains(logged[0], "agent_test.go:") {
		t.Errorf("the place is missing: %s", logged[0])
	}
	if strings.Contains(logged[0], "guarded") || strings.Contains(logged[0], "debug.Stack") {
		t.Errorf("there is more than the agent's own: %s", logged[0])
	}
}

func panicking(context.Context, any) (any, error) {
	var none map[string]int
	none["x"] = 1
	return nil, nil
}

func TestTheContextIsCancelledOnceTheHostSaysSo(t *testing.T) {
	asked, cancelled := 0, false
	ask := host.CancelRequested
	host.CancelRequested = func() bool { asked++; return cancelled }
	defer func() { host.CancelRequested = ask }()

	ctx := newContext()
	child, stop := context.WithCancel(ctx)
	defer stop()
	if ctx.Err() != nil || asked == 0 {
		t.Fatalf("%v after %d questions", ctx.Err(), asked)
	}
	cancelled = true
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Fatalf("%v", ctx.Err())
	}
	<-ctx.Done()
	<-child.Done()
	if CodeOf(context.Cause(child)) != Cancelled {
		t.Errorf("%v", context.Cause(child))
	}
	before := asked
	if ctx.Err(); asked != before {
		t.Error("it asks although it knows")
	}
}

func TestWithoutAHostACallFailsAndSaysWhy(t *testing.T) {
	_, err := host.Read("/x")
	if CodeOf(err) != InternalError || !strings.Contains(err.Error(), "fs.read: there is no host here") {
		t.Errorf("%v", err)
	}
	defer func() {
		if reason := fmt.Sprint(recover()); !strings.Contains(reason, "job.id: there is no host here") {
			t.Errorf("%s", reason)
		}
	}()
	host.ID()
}
