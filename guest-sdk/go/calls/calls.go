// Package calls is calls that are under way while the agent goes on.
//
// What takes its time can be started instead of done: [leasehold.dev/agent/net.Start],
// [leasehold.dev/agent/tool.Start], [leasehold.dev/agent/model.Start] and
// [leasehold.dev/agent/delegate.Start] give a [Pending] at once. An agent has
// at most the host's number of calls under way (default 128); one more is
// refused.
//
// A call of the host stops every goroutine of the agent until it returns, so
// goroutines do not make calls overlap: starting them does.
package calls

import (
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

// Pending is a call under way, and what it will give. It ends with [Pending.Finish]
// or is given up with [Pending.Close].
type Pending[T any] struct {
	call   *host.Call
	finish func(*host.Call) (T, error)
}

// NewPending is for the other packages of the SDK: nobody else has a call.
func NewPending[T any](call *host.Call, finish func(*host.Call) (T, error)) *Pending[T] {
	return &Pending[T]{call: call, finish: finish}
}

// ID gives the `call_id` of its `tool_call` and `tool_result` events. It is
// empty after the call's end, unless it was asked for before.
func (p *Pending[T]) ID() string { return p.call.ID() }

// Finish waits for the call's end and gives its outcome. A second time, or
// after [Pending.Close], it fails with [agent.InvalidRequest].
func (p *Pending[T]) Finish() (T, error) { return p.finish(p.call) }

// Close gives the call up, if it is not finished: what can be stopped of it is
// stopped, and it costs what was held back for it. It does not fail.
//
// A Pending that is neither finished nor closed is given up when the collector
// finds it, which may be late or never.
func (p *Pending[T]) Close() error {
	p.call.Drop()
	return nil
}

// HostCall is for the other packages of the SDK.
func (p *Pending[T]) HostCall() *host.Call { return p.call }

// UnderWay is something that can be waited for: a [Pending] or a stream.
type UnderWay interface {
	HostCall() *host.Call
}

// WaitAny waits until one of some calls has something to take: its end, or the
// next part of a stream. It gives the index of the one that had it first.
//
//	first, err := calls.WaitAny(slow, fast)
//
// No calls at all are [agent.InvalidRequest].
func WaitAny(calls ...UnderWay) (int, error) {
	index, _, err := wait(nil, calls)
	return index, err
}

// WaitAnyFor waits as [WaitAny] does, but no longer than a while; ok is false if
// that is over without. The while is rounded down to milliseconds.
func WaitAnyFor(patience time.Duration, calls ...UnderWay) (index int, ok bool, err error) {
	ms := uint64(max(patience, 0).Milliseconds())
	return wait(&ms, calls)
}

func wait(ms *uint64, calls []UnderWay) (int, bool, error) {
	list := make([]*host.Call, len(calls))
	for i, call := range calls {
		list[i] = call.HostCall()
	}
	first, err := host.WaitAny(list, ms)
	switch {
	case err != nil:
		return 0, false, err
	case first == nil && ms == nil:
		return 0, false, agent.Errorf(agent.InternalError, "the host stopped waiting")
	case first == nil:
		return 0, false, nil
	default:
		return int(*first), true, nil
	}
}

// Outcome is what came of one call.
type Outcome[T any] struct {
	Value T
	Err   error
}

// FinishAll waits for all of some calls and gives their outcomes, in the order
// of the calls.
func FinishAll[T any](calls ...*Pending[T]) []Outcome[T] {
	outcomes := make([]Outcome[T], len(calls))
	for i, call := range calls {
		outcomes[i].Value, outcomes[i].Err = call.Finish()
	}
	return outcomes
}
