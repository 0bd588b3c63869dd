// Package export_wit_world is the one package of the bindings that is not
// generated: the generated export calls it, by this name.
package export_wit_world

import (
	"leasehold.dev/agent/internal/bindings/leasehold_agent_types"
	"leasehold.dev/agent/internal/wit/types"
)

// Answer does the job. Package agent sets it before the host calls.
var Answer func(input string) (result string, code uint8, message string, ok bool)

// Run is what the export `run` of the world calls.
func Run(input string) types.Result[string, leasehold_agent_types.Error] {
	result, code, message, ok := Answer(input)
	if !ok {
		return types.Err[string](leasehold_agent_types.Error{Code: code, Message: message})
	}
	return types.Ok[string, leasehold_agent_types.Error](result)
}
