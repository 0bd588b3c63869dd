//go:build !wasip1

package delegate

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

func TestATaskIsTheSameEachTime(t *testing.T) {
	task := Task{
		Agent:      "editor",
		Input:      map[string]int{"b": 1, "a": 2},
		Lease:      map[string][]string{"fs.read": {"/a"}, "cost.budget": {"USD:0.10"}, "agent.delegate": {"x"}},
		ExpiresAt:  time.Date(2026, 5, 13, 21, 30, 0, 20_000_000, time.FixedZone("", 2*60*60)),
		MaxRuntime: 1500 * time.Millisecond,
	}
	for range 20 {
		lowered, err := task.lower()
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(lowered.Input, lowered.Lease, *lowered.ExpiresAt, *lowered.MaxRuntimeSec); text !=
			`{"a":2,"b":1}[{agent.delegate [x]} {cost.budget [USD:0.10]} {fs.read [/a]}]2026-05-13T19:30:00.020Z2` {
			t.Fatal(text)
		}
	}
	plain, err := Task{Agent: "echo"}.lower()
	if err != nil || plain.Input != "null" || plain.Lease != nil || plain.ExpiresAt != nil || plain.MaxRuntimeSec != nil {
		t.Errorf("%+v, %v", plain, err)
	}
	if _, err := Run[any](Task{Input: make(chan int)}); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
}

func TestAResultHasGosTypeAndARefusalItsCode(t *testing.T) {
	run, start, finish := host.Delegate, host.StartTask, host.FinishTask
	defer func() { host.Delegate, host.StartTask, host.FinishTask = run, start, finish }()
	host.Delegate = func(task host.Task) (string, error) {
		if task.Agent == "wide" {
			return "", host.NewError(1, "wider")
		}
		return task.Input, nil
	}
	host.StartTask = func(task host.Task) (*host.Call, error) { return &host.Call{Name: task.Input}, nil }
	host.FinishTask = func(call *host.Call) (string, error) { return call.Name, nil }

	if got, err := Run[[]int](Task{Agent: "echo", Input: []int{1, 2}}); len(got) != 2 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Run[string](Task{Agent: "echo", Input: 1}); !errors.Is(err, agent.InternalError) {
		t.Errorf("%v", err)
	}
	if _, err := Run[any](Task{Agent: "wide"}); !errors.Is(err, agent.LeaseSubsetViolation) {
		t.Errorf("%v", err)
	}
	pending, err := Start[string](Task{Agent: "echo", Input: "later"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pending.Finish(); got != "later" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestEventsOfTheOtherJobComeIn(t *testing.T) {
	stream, next, finish := host.StreamTask, host.NextEvent, host.FinishTask
	defer func() { host.StreamTask, host.NextEvent, host.FinishTask = stream, next, finish }()
	events := []string{`{"kind":"log","ts":"2026-05-13T19:30:00.020Z","body":{"level":"info"}}`}
	host.StreamTask = func(host.Task) (*host.Call, error) { return &host.Call{}, nil }
	host.NextEvent = func(*host.Call) (*string, error) {
		if len(events) == 0 {
			return nil, nil
		}
		event := events[0]
		events = nil
		return &event, nil
	}
	host.FinishTask = func(*host.Call) (string, error) { return `{"n":3}`, nil }

	task, err := Open(Task{Agent: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	event, err := task.Next()
	if event.Kind != "log" || event.Time.UnixMilli() != 1_778_700_600_020 || string(event.Body) != `{"level":"info"}` {
		t.Errorf("%+v, %v", event, err)
	}
	if _, err := task.Next(); err != io.EOF {
		t.Errorf("%v", err)
	}
	var result struct{ N int }
	if err := task.Finish(&result); result.N != 3 || err != nil {
		t.Errorf("%v, %v", result, err)
	}
	if err := task.Finish(&[]int{}); !errors.Is(err, agent.InternalError) {
		t.Errorf("%v", err)
	}
}
