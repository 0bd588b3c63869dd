// Package model is the language models the operator offers. Asking one needs
// `model.use` on its name. The host holds the keys and counts the cost: the most
// a request may cost is held back before it is sent.
package model

import (
	"encoding/json"
	"io"

	"leasehold.dev/agent"
	"leasehold.dev/agent/calls"
	"leasehold.dev/agent/internal/host"
	"leasehold.dev/agent/internal/text"
)

// List gives the models that this lease covers, by name. It needs no grant.
func List() ([]string, error) { return host.Models() }

// Message is one message of a conversation. For messages of another form, with
// images or `tool_calls`, make the request of maps.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Request is the body of a chat completion. What it has no field for goes into
// a type of your own: the functions take any value that becomes such a body in
// JSON. `model` and `stream` are the host's.
type Request struct {
	Messages    []Message `json:"messages"`
	MaxTokens   int       `json:"max_tokens,omitempty"`
	Temperature *float64  `json:"temperature,omitempty"`
}

// Completion is a chat completion.
type Completion struct {
	// Raw is the whole of it, as the API gives it.
	Raw     json.RawMessage
	Choices []Choice
	Usage   Usage
}

// Choice is one answer.
type Choice struct {
	Message      Answer `json:"message"`
	FinishReason string `json:"finish_reason"`
}

// Answer is the message of an answer.
type Answer struct {
	Role string `json:"role"`
	// Content is the text, and nil if there is none.
	Content *string `json:"content"`
	// ToolCalls is the calls of tools that the model asks for, if it does.
	ToolCalls json.RawMessage `json:"tool_calls"`
}

// Usage is how many tokens a request took.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
}

// UnmarshalJSON reads a completion and keeps the whole of it.
func (c *Completion) UnmarshalJSON(text []byte) error {
	var known struct {
		Choices []Choice `json:"choices"`
		Usage   Usage    `json:"usage"`
	}
	if err := json.Unmarshal(text, &known); err != nil {
		return err
	}
	*c = Completion{Raw: append(json.RawMessage(nil), text...), Choices: known.Choices, Usage: known.Usage}
	return nil
}

// Text gives the text of the first answer, and whether it has one.
func (c *Completion) Text() (string, bool) {
	if len(c.Choices) == 0 || c.Choices[0].Message.Content == nil {
		return "", false
	}
	return *c.Choices[0].Message.Content, true
}

// Ask asks a model one question and gives the text of its answer. An answer
// without text is [agent.InternalError].
func Ask(model, question string) (string, error) {
	completion, err := Complete(model, Request{Messages: []Message{{Role: "user", Content: question}}})
	if err != nil {
		return "", err
	}
	text, ok := completion.Text()
	if !ok {
		return "", agent.Errorf(agent.InternalError, "the model's answer has no text")
	}
	return text, nil
}

// Complete asks a model. The request is a [Request] or anything else that
// becomes the body of an OpenAI chat completion.
//
// It fails with [agent.PermissionDenied] and [agent.NotFound]; with
// [agent.InvalidRequest] naming the field; with [agent.BudgetExhausted] if it
// might cost more than is left; with [agent.InternalError] if the model's
// provider fails; with [agent.Timeout].
func Complete(model string, request any) (*Completion, error) {
	asked, err := text.Of(model, request)
	if err != nil {
		return nil, err
	}
	answer, err := host.Complete(model, asked)
	return text.To[*Completion](model, answer, err)
}

// Start starts what [Complete] does, and goes on meanwhile.
func Start(model string, request any) (*calls.Pending[*Completion], error) {
	asked, err := text.Of(model, request)
	if err != nil {
		return nil, err
	}
	call, err := host.StartComplete(model, asked)
	if err != nil {
		return nil, err
	}
	return calls.NewPending(call, func(call *host.Call) (*Completion, error) {
		answer, err := host.FinishComplete(call)
		return text.To[*Completion](model, answer, err)
	}), nil
}

// Stream is an answer that comes in parts. It is given up with [Stream.Close].
type Stream struct {
	call  *host.Call
	model string
}

// Open asks a model and takes the answer as it comes. It fails with those
// errors of [Complete] that are known at once.
//
//	story, err := model.Open("tier-fast/small", request)
//	if err != nil {
//		return err
//	}
//	defer story.Close()
//	for {
//		words, err := story.NextText()
//		if err == io.EOF {
//			break
//		} else if err != nil {
//			return err
//		}
//		fmt.Fprint(out, words)
//	}
func Open(model string, request any) (*Stream, error) {
	asked, err := text.Of(model, request)
	if err != nil {
		return nil, err
	}
	call, err := host.StreamComplete(model, asked)
	if err != nil {
		return nil, err
	}
	return &Stream{call: call, model: model}, nil
}

// Next waits for the next `chat.completion.chunk`, as the API gives it;
// [io.EOF] after the last.
func (s *Stream) Next() (json.RawMessage, error) {
	chunk, err := host.NextChunk(s.call)
	if err != nil {
		return nil, err
	}
	if chunk == nil {
		return nil, io.EOF
	}
	return json.RawMessage(*chunk), nil
}

// NextText waits for the next words of the first answer; [io.EOF] after the
// last. Chunks without words are passed over.
func (s *Stream) NextText() (string, error) {
	for {
		raw, err := s.Next()
		if err != nil {
			return "", err
		}
		type delta struct {
			Choices []struct {
				Index int `json:"index"`
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
		}
		chunk, err := text.To[delta](s.model, string(raw), nil)
		if err != nil {
			return "", err
		}
		for _, choice := range chunk.Choices {
			if choice.Index == 0 && choice.Delta.Content != "" {
				return choice.Delta.Content, nil
			}
		}
	}
}

// Finish waits for the end and gives the completion that the parts make. The
// stream is then closed.
func (s *Stream) Finish() (*Completion, error) {
	answer, err := host.FinishComplete(s.call)
	return text.To[*Completion](s.model, answer, err)
}

// Close gives the rest of the answer up. It does not fail.
func (s *Stream) Close() error {
	s.call.Drop()
	return nil
}

// HostCall is for the other packages of the SDK: a stream can be waited for.
func (s *Stream) HostCall() *host.Call { return s.call }
