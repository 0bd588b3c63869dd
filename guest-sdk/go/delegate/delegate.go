// Package delegate is handing part of the job to another agent. It needs
// `agent.delegate` on the agent, as `name` or as `name@version`.
//
// The other agent runs as a job of its own, with a lease that is a part of this
// one's: what is wider is [agent.LeaseSubsetViolation]. Its end is at the latest
// this lease's end, and its budget is taken out of what is left of this one;
// what it leaves comes back. It is cancelled when this job ends.
package delegate

import (
	"encoding/json"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	_ "leasehold.dev/agent" // its errors
	"leasehold.dev/agent/calls"
	"leasehold.dev/agent/internal/host"
	"leasehold.dev/agent/internal/text"
)

// Task is what another agent is to do.
type Task struct {
	// Agent is `name` or `name@version`.
	Agent string
	// Input becomes JSON.
	Input any
	// Lease is the patterns of each namespace. What is not named is not granted;
	// a `cost.budget` that is not named is all that is left of this one.
	Lease map[string][]string
	// ExpiresAt ends the lease before this job's own end. The zero time does not.
	ExpiresAt time.Time
	// MaxRuntime is how long the job may run, in whole seconds rounded up. 0
	// leaves it to the host.
	MaxRuntime time.Duration
}

func (t Task) lower() (host.Task, error) {
	input, err := text.Of(t.Agent+": input", t.Input)
	if err != nil {
		return host.Task{}, err
	}
	task := host.Task{Agent: t.Agent, Input: input}
	for _, namespace := range slices.Sorted(maps.Keys(t.Lease)) {
		task.Lease = append(task.Lease, host.Grant{Namespace: namespace, Patterns: t.Lease[namespace]})
	}
	if !t.ExpiresAt.IsZero() {
		at := t.ExpiresAt.UTC().Format("2006-01-02T15:04:05.000Z")
		task.ExpiresAt = &at
	}
	if t.MaxRuntime > 0 {
		seconds := uint32(min((t.MaxRuntime+time.Second-1)/time.Second, math.MaxUint32))
		task.MaxRuntimeSec = &seconds
	}
	return task, nil
}

// Run has a task done, and waits for its result, which is read as a T.
//
//	report, err := delegate.Run[string](delegate.Task{
//		Agent: "editor",
//		Input: hits,
//		Lease: map[string][]string{"cost.budget": {"USD:0.10"}},
//	})
//
// It fails with [agent.PermissionDenied], [agent.LeaseSubsetViolation],
// [agent.AgentNotAvailable] and [agent.BudgetExhausted]; a job that ends
// without a result is its error here.
func Run[T any](task Task) (T, error) {
	var none T
	lowered, err := task.lower()
	if err != nil {
		return none, err
	}
	answer, err := host.Delegate(lowered)
	return text.To[T](task.Agent, answer, err)
}

// Start starts what [Run] does, and goes on meanwhile.
func Start[T any](task Task) (*calls.Pending[T], error) {
	lowered, err := task.lower()
	if err != nil {
		return nil, err
	}
	call, err := host.StartTask(lowered)
	if err != nil {
		return nil, err
	}
	return calls.NewPending(call, func(call *host.Call) (T, error) {
		answer, err := host.FinishTask(call)
		return text.To[T](task.Agent, answer, err)
	}), nil
}

// Event is one event of the other job.
type Event struct {
	// Kind is such as `log` or `progress`.
	Kind string `json:"kind"`
	// Time is when it was emitted.
	Time time.Time `json:"ts"`
	// Body is as the kind has it.
	Body json.RawMessage `json:"body"`
}

// Stream is a task whose events come in. It is given up with [Stream.Close].
type Stream struct {
	call  *host.Call
	agent string
}

// Open starts a task and has its events come in.
func Open(task Task) (*Stream, error) {
	lowered, err := task.lower()
	if err != nil {
		return nil, err
	}
	call, err := host.StreamTask(lowered)
	if err != nil {
		return nil, err
	}
	return &Stream{call: call, agent: task.Agent}, nil
}

// JobID gives the id of the job that does the task.
func (s *Stream) JobID() (string, error) { return host.JobID(s.call) }

// Next waits for the next event of the job; [io.EOF] once it has ended.
func (s *Stream) Next() (Event, error) {
	event, err := host.NextEvent(s.call)
	if err != nil {
		return Event{}, err
	}
	if event == nil {
		return Event{}, io.EOF
	}
	return text.To[Event](s.agent, *event, nil)
}

// Finish waits for the result and reads it into what a pointer points to. The
// stream is then closed.
func (s *Stream) Finish(result any) error {
	answer, err := host.FinishTask(s.call)
	if err != nil {
		return err
	}
	return text.Into(s.agent, []byte(answer), result)
}

// Close gives the task up: its job is cancelled. It does not fail.
func (s *Stream) Close() error {
	s.call.Drop()
	return nil
}

// HostCall is for the other packages of the SDK: a stream can be waited for.
func (s *Stream) HostCall() *host.Call { return s.call }
