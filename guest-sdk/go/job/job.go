// Package job is what an agent may know of its own job. It needs no grant.
package job

import (
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

// nap is how long [Sleep] may go on after a cancellation; the host's grace time
// is longer.
const nap = time.Second

// ID gives the job's id, `job_` and a ULID.
func ID() string { return host.ID() }

// Agent gives the agent as it was resolved at submission, `name@version`.
func Agent() string { return host.Agent() }

// TraceID gives the W3C trace id, 32 hexadecimal digits.
func TraceID() string { return host.TraceID() }

// ExpiresAt gives the instant at which the lease ends, if it does.
func ExpiresAt() (at time.Time, ok bool) {
	text := host.ExpiresAt()
	if text == nil {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, *text)
	return at, err == nil
}

// Amount is what is left of one currency of the budget.
type Amount struct {
	Currency string
	// Left is an exact decimal number such as "0.0234", and may be negative.
	// [math/big.Rat] reckons with it.
	Left string
}

// Budget gives what is left of each currency of the budget. It is empty if the
// lease has no `cost.budget`.
func Budget() []Amount {
	left := host.Budget()
	amounts := make([]Amount, len(left))
	for i, pair := range left {
		amounts[i] = Amount{Currency: pair.Name, Left: pair.Value}
	}
	return amounts
}

// Grants gives the patterns the lease grants in a namespace such as `fs.read`.
func Grants(namespace string) []string { return host.Grants(namespace) }

// Cancelled tells whether cancellation was asked for. Once true it stays true,
// operations answer [agent.Cancelled], and the job is ended by force after the
// host's grace time (default 5 s).
func Cancelled() bool { return host.CancelRequested() }

// CheckCancelled fails with [agent.Cancelled] once cancellation was asked for,
// so that a long loop ends:
//
//	if err := job.CheckCancelled(); err != nil {
//		return err
//	}
func CheckCancelled() error {
	if Cancelled() {
		return &agent.Error{Code: agent.Cancelled, Message: "the job is being cancelled"}
	}
	return nil
}

// Sleep sleeps, but no longer than a second once cancellation was asked for,
// and fails then with [agent.Cancelled]. Other goroutines run meanwhile.
func Sleep(duration time.Duration) error {
	// Time is counted down, not read from a clock: the calls a run makes are
	// then the same when the host replays it.
	for left := duration; left > 0; left -= nap {
		time.Sleep(min(left, nap))
		if err := CheckCancelled(); err != nil {
			return err
		}
	}
	return nil
}
