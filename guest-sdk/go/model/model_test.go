//go:build !wasip1

package model

import (
	"errors"
	"io"
	"strings"
	"testing"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

const completion = `{"id":"c1","choices":[{"message":{"role":"assistant","content":"a lease"},` +
	`"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`

func TestAQuestionHasAnAnswerOrAReason(t *testing.T) {
	complete := host.Complete
	defer func() { host.Complete = complete }()
	var asked, answer string
	host.Complete = func(model, request string) (string, error) { asked = model + " " + request; return answer, nil }
	for _, row := range []struct {
		answer, text string
		code         agent.Code
	}{
		{completion, "a lease", ""},
		{`{"choices":[]}`, "", agent.InternalError},
		{`{"choices":[{"message":{"content":null,"tool_calls":[{}]}}]}`, "", agent.InternalError},
		{`[]`, "", agent.InternalError},
	} {
		answer = row.answer
		text, err := Ask("m", "what is it?")
		if text != row.text || (err != nil) != (row.code != "") || err != nil && !errors.Is(err, row.code) {
			t.Errorf("%s: %q, %v", row.answer, text, err)
		}
	}
	if asked != `m {"messages":[{"role":"user","content":"what is it?"}]}` {
		t.Error(asked)
	}
	answer = completion
	whole, err := Complete("m", Request{MaxTokens: 16})
	if err != nil || string(whole.Raw) != completion || whole.Usage != (Usage{3, 2}) {
		t.Errorf("%+v, %v", whole, err)
	}
	if _, err := Complete("m", make(chan int)); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
}

func TestWordsComeAsTheyCome(t *testing.T) {
	open, next, finish := host.StreamComplete, host.NextChunk, host.FinishComplete
	defer func() { host.StreamComplete, host.NextChunk, host.FinishComplete = open, next, finish }()
	chunks := []string{
		`{"choices":[{"delta":{"role":"assistant"}}]}`,
		`{"choices":[{"index":1,"delta":{"content":"another"}},{"index":0,"delta":{"content":"a "}}]}`,
		`{"choices":[{"delta":{"content":"lease"}}]}`,
		`{"choices":[],"usage":{}}`,
	}
	call := &host.Call{}
	host.StreamComplete = func(string, string) (*host.Call, error) { return call, nil }
	host.NextChunk = func(*host.Call) (*string, error) {
		if len(chunks) == 0 {
			return nil, nil
		}
		chunk := chunks[0]
		chunks = chunks[1:]
		return &chunk, nil
	}
	host.FinishComplete = func(*host.Call) (string, error) { return completion, nil }

	stream, err := Open("m", Request{})
	if err != nil {
		t.Fatal(err)
	}
	var words strings.Builder
	for {
		text, err := stream.NextText()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		words.WriteString(text)
	}
	if words.String() != "a lease" {
		t.Errorf("%q", words.String())
	}
	whole, err := stream.Finish()
	if text, ok := whole.Text(); text != "a lease" || !ok || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	chunks = []string{`[]`}
	if _, err := stream.NextText(); !errors.Is(err, agent.InternalError) {
		t.Errorf("%v", err)
	}
	stream.Close()
	if call.Dropped != 1 {
		t.Error("what was closed was not given up")
	}
}
