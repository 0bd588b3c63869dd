//go:build !wasip1

package tool

import (
	"errors"
	"strings"
	"testing"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

type said struct {
	Text string `json:"text"`
}

// upper is a tool, and what a started call of it is asked with.
func upper(t *testing.T) {
	call, start, finish := host.CallTool, host.StartTool, host.FinishTool
	t.Cleanup(func() { host.CallTool, host.StartTool, host.FinishTool = call, start, finish })
	answer := func(name, arguments string) (string, error) {
		if name != "upper" {
			return "", host.NewError(0, name)
		}
		return strings.ReplaceAll(strings.ToUpper(arguments), `"TEXT"`, `"text"`), nil
	}
	host.CallTool = answer
	host.StartTool = func(name, arguments string) (*host.Call, error) {
		if _, err := answer(name, arguments); err != nil {
			return nil, err
		}
		return &host.Call{Name: arguments}, nil
	}
	host.FinishTool = func(call *host.Call) (string, error) { return answer("upper", call.Name) }
}

func TestArgumentsAndAnswersHaveGosTypes(t *testing.T) {
	upper(t)
	got, err := Call[said]("upper", said{"<lease>"})
	if got.Text != "<LEASE>" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	pending, err := Start[map[string]string]("upper", said{"later"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pending.Finish(); got["text"] != "LATER" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWhoIsAtFaultIsSaid(t *testing.T) {
	upper(t)
	_, denied := Call[said]("rm", said{})
	_, deniedAtOnce := Start[said]("rm", said{})
	_, arguments := Call[said]("upper", make(chan int))
	_, argumentsAtOnce := Start[said]("upper", make(chan int))
	_, answer := Call[[]int]("upper", said{"x"})
	for _, row := range []struct {
		err  error
		code agent.Code
	}{
		{denied, agent.PermissionDenied},
		{deniedAtOnce, agent.PermissionDenied},
		{arguments, agent.InvalidRequest},
		{argumentsAtOnce, agent.InvalidRequest},
		{answer, agent.InternalError},
	} {
		if !errors.Is(row.err, row.code) {
			t.Errorf("%v is not %s", row.err, row.code)
		}
	}
}

func TestASchemaIsJSONOrNil(t *testing.T) {
	list := host.Tools
	defer func() { host.Tools = list }()
	schema := `{"type":"string"}`
	host.Tools = func() ([]host.Tool, error) {
		return []host.Tool{{Name: "a", InputSchema: "{}"}, {Name: "b", InputSchema: "{}", OutputSchema: &schema}}, nil
	}
	tools, err := List()
	if err != nil || len(tools) != 2 || tools[0].OutputSchema != nil || string(tools[1].OutputSchema) != schema {
		t.Errorf("%v, %v", tools, err)
	}
}
