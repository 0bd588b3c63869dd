//go:build !wasip1

package calls

import (
	"errors"
	"testing"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

func TestAWaitGivesTheIndexOrThatItWasOver(t *testing.T) {
	wait := host.WaitAny
	defer func() { host.WaitAny = wait }()
	var names string
	var patience *uint64
	var first *uint32
	host.WaitAny = func(calls []*host.Call, ms *uint64) (*uint32, error) {
		names, patience = "", ms
		for _, call := range calls {
			names += call.Name
		}
		if len(calls) == 0 {
			return nil, host.NewError(9, "the list is empty")
		}
		return first, nil
	}
	a := NewPending(&host.Call{Name: "a"}, func(*host.Call) (int, error) { return 1, nil })
	b := NewPending(&host.Call{Name: "b"}, func(*host.Call) (string, error) { return "", host.NewError(8, "late") })

	if _, ok, err := WaitAnyFor(1500*time.Microsecond, a, b); ok || err != nil || *patience != 1 || names != "ab" {
		t.Errorf("%v, %v, %d, %s", ok, err, *patience, names)
	}
	if _, _, err := WaitAnyFor(-time.Second, a); err != nil || *patience != 0 {
		t.Errorf("%v, %d", err, *patience)
	}
	if _, err := WaitAny(); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
	one := uint32(1)
	first = &one
	if index, err := WaitAny(a, b); index != 1 || err != nil || patience != nil {
		t.Errorf("%d, %v, %v", index, err, patience)
	}
}

func TestAllOutcomesComeInTheOrderOfTheCalls(t *testing.T) {
	var pending []*Pending[string]
	for _, name := range []string{"a", "b", "c"} {
		pending = append(pending, NewPending(&host.Call{Name: name}, func(call *host.Call) (string, error) {
			if call.Name == "b" {
				return "", host.NewError(8, "late")
			}
			return call.Name, nil
		}))
	}
	outcomes := FinishAll(pending...)
	if outcomes[0].Value != "a" || !errors.Is(outcomes[1].Err, agent.Timeout) || outcomes[2].Value != "c" {
		t.Errorf("%v", outcomes)
	}
	pending[0].Close()
	if pending[0].HostCall().Dropped != 1 || pending[0].ID() != "a" {
		t.Error("what was closed was not given up")
	}
}
