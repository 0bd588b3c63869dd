// Package agent writes Leasehold agents in Go.
//
// An agent is one function from an input to a result. It is built as a
// WebAssembly component, and it reaches nothing but what its job's lease
// grants: no files, no network and no environment come from the standard
// library. Each package below this one is one of the host's interfaces, and a
// refusal is an [Error] to handle, never a crash.
//
//	package main
//
//	import (
//		"bytes"
//		"context"
//
//		"leasehold.dev/agent"
//		"leasehold.dev/agent/fs"
//	)
//
//	type Input struct {
//		Path string `json:"path"`
//	}
//
//	type Output struct {
//		Lines int `json:"lines"`
//	}
//
//	func init() { agent.Run(run) }
//
//	func main() {}
//
//	func run(ctx context.Context, in Input) (Output, error) {
//		text, err := fs.ReadFile(in.Path)
//		if err != nil {
//			return Output{}, err
//		}
//		return Output{Lines: bytes.Count(text, []byte("\n"))}, nil
//	}
//
// Built for another machine than the host's the packages compile, so the parts
// of an agent that call no host can be tested with `go test`. A call to the host
// fails there with [InternalError], and panics if it has no error to return.
package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"

	"leasehold.dev/agent/internal/host"
)

// Run makes a function the agent of this component. It is called once, by an
// init function; the host calls the function later, and main is never called.
//
// The input is read with encoding/json into an In. An input that does not fit
// ends the job with [InvalidRequest] and a message that names the field, such
// as `input: name: is a number and not a string`. A field that is missing
// keeps its zero value, as encoding/json has it: what must be there is for the
// function to check. With [json.RawMessage] as In the function gets the text
// itself, and with it as Out it gives the text itself.
//
// The context is cancelled when the job is asked to stop; see [context.Context.Err]
// and [context.Context.Done], which both work. An agent that does not return is
// ended by force after the host's grace time (default 5 s).
//
// An error ends the job. If there is an [Error] in its chain, or an error of the
// standard library that says the same as a code, that is the code the client
// gets, and otherwise it gets [InternalError]. A panic is logged with its stack
// and ends the job with [InternalError]; a panic in another goroutine ends the
// component with the same code, as there is no way to recover it.
//
// After package output was used, Out is any (and nil), or a string: the
// summary of a streamed result.
func Run[In, Out any](run func(ctx context.Context, in In) (Out, error)) {
	host.Serve(func(input string) (result string, code uint8, message string, ok bool) {
		result, err := guarded(input, run)
		if err == nil {
			return result, 0, "", true
		}
		return "", CodeOf(err).number(), strings.ToValidUTF8(messageOf(err), "\uFFFD"), false
	})
}

// messageOf leaves out the code, which travels beside the message, unless
// something was said before it.
func messageOf(err error) string {
	if err, ok := err.(*Error); ok {
		return err.Message
	}
	return err.Error()
}

// guarded makes an error of a panic.
func guarded[In, Out any](input string, run func(context.Context, In) (Out, error)) (result string, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			host.Log(host.LevelError, fmt.Sprintf("panic: %v\n%s", reason, ownFrames(string(debug.Stack()))))
			err = Errorf(InternalError, "panic: %v", reason)
		}
	}()
	return answer(newContext(), input, run)
}

// ownFrames leaves out of a stack what is not the agent's: how the panic came to
// be recovered before its frames, and how the agent came to be called after them.
func ownFrames(stack string) string {
	if _, after, ok := strings.Cut(stack, "\npanic("); ok {
		// The line of panic itself, and the place in Go's runtime below it.
		if parts := strings.SplitN(after, "\n", 3); len(parts) == 3 {
			stack = parts[2]
		}
	}
	own, _, _ := strings.Cut(stack, "\nleasehold.dev/agent.answer[")
	return own
}

// answer reads the input, runs the agent and writes its result.
func answer[In, Out any](
	ctx context.Context, input string, run func(context.Context, In) (Out, error),
) (string, error) {
	var in In
	if err := json.Unmarshal([]byte(input), &in); err != nil {
		return "", misfit(err)
	}
	out, err := run(ctx, in)
	if err != nil {
		return "", err
	}
	var result bytes.Buffer
	encoder := json.NewEncoder(&result)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(out); err != nil {
		return "", Errorf(InternalError, "result: %v", err)
	}
	return strings.TrimSuffix(result.String(), "\n"), nil
}

// misfit says what is wrong with an input in the words of who sent it: they see
// no type of ours.
func misfit(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return Errorf(InvalidRequest, "input: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	field := ""
	if wrong.Field != "" {
		field = wrong.Field + ": "
	}
	return Errorf(InvalidRequest, "input: %sis %s and not %s", field, article(wrong.Value), noun(wrong.Type))
}

func article(value string) string {
	switch {
	case value == "bool":
		return "a boolean"
	case strings.HasPrefix(value, "number "):
		return "the " + value
	case value == "array" || value == "object":
		return "an " + value
	default:
		return "a " + value
	}
}

// noun says in JSON's words what a type of Go takes.
func noun(kind reflect.Type) string {
	switch kind.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		if kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Uint8 {
			return "a string of base64"
		}
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "an integer that fits " + kind.Kind().String()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that fits " + kind.Kind().String()
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Pointer:
		return noun(kind.Elem())
	default:
		return "what the agent takes"
	}
}
