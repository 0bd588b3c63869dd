package agent

import (
	"context"
	"sync"
	"time"

	"leasehold.dev/agent/internal/host"
)

// glance is how often a waiting agent looks whether it is to stop.
const glance = 100 * time.Millisecond

// jobContext is the context of a job: cancelled once cancellation was asked for.
//
// Nothing interrupts an agent, so somebody has to ask. Err asks each time,
// which is right for a loop that computes. Who waits for Done lets other
// goroutines run, so from the first call of Done on one of them asks.
type jobContext struct {
	context.Context
	cancel context.CancelCauseFunc
	watch  sync.Once
}

func newContext() *jobContext {
	inner, cancel := context.WithCancelCause(context.Background())
	return &jobContext{Context: inner, cancel: cancel}
}

func (c *jobContext) look() {
	if c.Context.Err() == nil && host.CancelRequested() {
		c.cancel(&Error{Code: Cancelled, Message: "the job is being cancelled"})
	}
}

// Err tells whether cancellation was asked for, by asking.
func (c *jobContext) Err() error {
	c.look()
	return c.Context.Err()
}

// Done gives the channel that is closed once cancellation was asked for.
func (c *jobContext) Done() <-chan struct{} {
	c.watch.Do(func() {
		go func() {
			for c.Err() == nil {
				time.Sleep(glance)
			}
		}()
	})
	return c.Context.Done()
}
