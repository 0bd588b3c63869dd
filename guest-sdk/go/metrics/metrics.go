// Package metrics is figures an agent reports, money among them. It needs no
// grant; a cost is taken off the lease's `cost.budget`.
//
// A figure is an exact decimal number as text, such as "0.0234": digits, at
// most one point, an optional leading minus, no exponent, at most 28
// significant digits. Money is never a float.
package metrics

import (
	_ "leasehold.dev/agent" // its errors
	"leasehold.dev/agent/internal/host"
)

// Option says more of a figure.
type Option func(*figure)

type figure struct {
	unit       *string
	dimensions []host.Pair
}

// Unit says what the figure is in. At most 32 bytes.
func Unit(unit string) Option { return func(f *figure) { f.unit = &unit } }

// Dimension says one thing the figure is of, such as a file. At most 16 of
// them, with names of 64 bytes and values of 256.
func Dimension(name, value string) Option {
	return func(f *figure) { f.dimensions = append(f.dimensions, host.Pair{Name: name, Value: value}) }
}

// Emit reports one figure. Its name has 1 to 128 bytes.
//
//	err := metrics.Emit("survey.steps", "3", metrics.Unit("steps"), metrics.Dimension("kind", "done"))
//
// What is over a limit or no decimal number is [agent.InvalidRequest]. A name
// that begins with `cost.`, with a currency of the budget as the unit, is taken
// off the budget: see [Cost].
func Emit(name, value string, options ...Option) error {
	var f figure
	for _, option := range options {
		option(&f)
	}
	return host.Emit(name, value, f.unit, f.dimensions)
}

// Cost reports money the agent has spent: the figure `cost.NAME`, which is
// taken off the budget if the lease has one in that currency.
//
//	err := metrics.Cost("inference", "0.25", "USD")
//
// The cost that exhausts a budget succeeds; the next operation is refused with
// [agent.BudgetExhausted]. A negative cost is [agent.InvalidRequest] and
// changes nothing.
func Cost(name, amount, currency string, options ...Option) error {
	return Emit("cost."+name, amount, append([]Option{Unit(currency)}, options...)...)
}
