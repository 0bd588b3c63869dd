// Greets: the smallest agent that has an input, an event and a result.
package main

import (
	"context"

	"leasehold.dev/agent"
	"leasehold.dev/agent/events"
)

// Input is what a client sends. Both may be missing, the name and the object.
type Input struct {
	Name *string `json:"name"`
}

// Output is what it gets.
type Output struct {
	Greeting string `json:"greeting"`
}

func init() { agent.Run(run) }

func main() {}

func run(_ context.Context, in Input) (Output, error) {
	name := "world"
	if in.Name != nil {
		name = *in.Name
	}
	if name == "" {
		return Output{}, agent.Errorf(agent.InvalidRequest, "input: name: must not be empty")
	}
	greeting := "Hello, " + name + "!"
	events.Infof("%s", greeting)
	return Output{Greeting: greeting}, nil
}
