// Package text turns values into the JSON texts of the contract and back.
package text

import (
	"bytes"
	"encoding/json"
	"strings"

	"leasehold.dev/agent"
)

// Of gives the JSON text of a value. What cannot be one is the caller's fault.
func Of(what string, value any) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "", agent.Errorf(agent.InvalidRequest, "%s: %v", what, err)
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// Into reads an answer into what a pointer points to. An answer of another form
// is the fault of who answered.
func Into(what string, answer []byte, value any) error {
	if err := json.Unmarshal(answer, value); err != nil {
		return agent.Errorf(agent.InternalError, "%s: the answer: %v", what, err)
	}
	return nil
}

// To reads an answer; an error of the call that gave it comes first.
func To[T any](what, answer string, err error) (value T, _ error) {
	if err != nil {
		return value, err
	}
	return value, Into(what, []byte(answer), &value)
}
