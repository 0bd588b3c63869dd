// Package tool is the tools the operator has registered. Calling one needs
// `tool.call` on its name.
package tool

import (
	"encoding/json"

	_ "leasehold.dev/agent" // its errors
	"leasehold.dev/agent/calls"
	"leasehold.dev/agent/internal/host"
	"leasehold.dev/agent/internal/text"
)

// Tool is a tool, as [List] gives it.
type Tool struct {
	// Name is such as `search.web`: the server and its tool.
	Name string
	// Description says what it does.
	Description string
	// InputSchema is the JSON Schema of its arguments.
	InputSchema json.RawMessage
	// OutputSchema is the JSON Schema of its result, and nil if it has none.
	OutputSchema json.RawMessage
}

// List gives the tools that this lease covers, by name. It needs no grant.
func List() ([]Tool, error) {
	found, err := host.Tools()
	if err != nil {
		return nil, err
	}
	tools := make([]Tool, len(found))
	for i, tool := range found {
		tools[i] = Tool{Name: tool.Name, Description: tool.Description, InputSchema: json.RawMessage(tool.InputSchema)}
		if tool.OutputSchema != nil {
			tools[i].OutputSchema = json.RawMessage(*tool.OutputSchema)
		}
	}
	return tools, nil
}

// Call calls a tool. The arguments become a JSON object, and the result is read
// as a T.
//
//	hits, err := tool.Call[[]string]("search.web", map[string]any{"query": "leases"})
//
// It fails with [agent.PermissionDenied] and [agent.NotFound]; with
// [agent.InvalidRequest] if the arguments do not fit the tool's schema, saying
// where; with [agent.BudgetExhausted] if its price is more than what is left;
// with [agent.InternalError] in the tool's own words if it fails, or if its
// result is no T; with [agent.Timeout].
func Call[T any](name string, arguments any) (T, error) {
	asked, err := text.Of(name, arguments)
	if err != nil {
		var none T
		return none, err
	}
	answer, err := host.CallTool(name, asked)
	return text.To[T](name, answer, err)
}

// Start starts what [Call] does, and goes on meanwhile.
func Start[T any](name string, arguments any) (*calls.Pending[T], error) {
	asked, err := text.Of(name, arguments)
	if err != nil {
		return nil, err
	}
	call, err := host.StartTool(name, asked)
	if err != nil {
		return nil, err
	}
	return calls.NewPending(call, func(call *host.Call) (T, error) {
		answer, err := host.FinishTool(call)
		return text.To[T](name, answer, err)
	}), nil
}
