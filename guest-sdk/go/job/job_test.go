//go:build !wasip1

package job

import (
	"errors"
	"slices"
	"testing"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

func TestASleepEndsSoonAfterACancellation(t *testing.T) {
	ask := host.CancelRequested
	defer func() { host.CancelRequested = ask }()
	asked := 0
	host.CancelRequested = func() bool { asked++; return true }
	if err := Sleep(time.Millisecond); !errors.Is(err, agent.Cancelled) || asked != 1 {
		t.Errorf("%v after %d questions", err, asked)
	}
	if err := errors.Join(Sleep(0), Sleep(-time.Second)); err != nil || asked != 1 {
		t.Errorf("%v after %d questions", err, asked)
	}
	host.CancelRequested = func() bool { return false }
	begin := time.Now()
	if err := Sleep(20 * time.Millisecond); err != nil || time.Since(begin) < 20*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	if err := CheckCancelled(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsKnownOfAJobIsInGosTypes(t *testing.T) {
	expires, budget := host.ExpiresAt, host.Budget
	defer func() { host.ExpiresAt, host.Budget = expires, budget }()
	for _, row := range []struct {
		text  string
		milli int64
		ok    bool
	}{
		{"2026-05-13T19:30:00.020Z", 1_778_700_600_020, true},
		{"tomorrow", 0, false},
	} {
		host.ExpiresAt = func() *string { return &row.text }
		if at, ok := ExpiresAt(); ok != row.ok || ok && at.UnixMilli() != row.milli {
			t.Errorf("%s: %v, %v", row.text, at, ok)
		}
	}
	host.ExpiresAt = func() *string { return nil }
	if _, ok := ExpiresAt(); ok {
		t.Error("a lease without an end has one")
	}
	host.Budget = func() []host.Pair { return []host.Pair{{Name: "EUR", Value: "-0.5"}, {Name: "USD", Value: "1"}} }
	if left := Budget(); !slices.Equal(left, []Amount{{"EUR", "-0.5"}, {"USD", "1"}}) {
		t.Errorf("%v", left)
	}
}
