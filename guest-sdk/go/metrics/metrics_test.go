//go:build !wasip1

package metrics

import (
	"fmt"
	"slices"
	"testing"

	"leasehold.dev/agent/internal/host"
)

func TestACostIsAFigureInItsCurrency(t *testing.T) {
	emit := host.Emit
	defer func() { host.Emit = emit }()
	var told []string
	host.Emit = func(name, value string, unit *string, dimensions []host.Pair) error {
		if unit == nil {
			none := "-"
			unit = &none
		}
		told = append(told, fmt.Sprint(name, " ", value, " ", *unit, " ", dimensions))
		return nil
	}
	Emit("plain", "3")
	Emit("steps", "3", Unit("steps"), Dimension("kind", "done"), Dimension("a", "b"))
	Cost("inference", "0.25", "USD", Dimension("model", "m"))
	if expected := []string{
		"plain 3 - []", "steps 3 steps [{kind done} {a b}]", "cost.inference 0.25 USD [{model m}]",
	}; !slices.Equal(told, expected) {
		t.Errorf("%q", told)
	}
}
