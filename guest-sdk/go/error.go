package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"leasehold.dev/agent/internal/host"
)

// Code says which kind of error an [Error] is, spelt as in the contract with
// the host. A Code is an error itself, so that errors.Is can look for it:
//
//	if errors.Is(err, agent.PermissionDenied) { … }
type Code string

// Every code there is.
const (
	// PermissionDenied: the lease does not cover the operation.
	PermissionDenied Code = "permission-denied"
	// LeaseSubsetViolation: a delegated lease would be wider than this job's own.
	LeaseSubsetViolation Code = "lease-subset-violation"
	// LeaseExpired: the end of the lease has been reached.
	LeaseExpired Code = "lease-expired"
	// BudgetExhausted: a budget is spent, or less is left than the operation may cost.
	BudgetExhausted Code = "budget-exhausted"
	// JobNotFound: no job of that id, or none this agent may see.
	JobNotFound Code = "job-not-found"
	// AgentNotAvailable: no agent of that name.
	AgentNotAvailable Code = "agent-not-available"
	// AgentVersionNotAvailable: the agent exists, the version does not.
	AgentVersionNotAvailable Code = "agent-version-not-available"
	// Cancelled: the job is being cancelled; stop and return.
	Cancelled Code = "cancelled"
	// Timeout: the operation took longer than its limit.
	Timeout Code = "timeout"
	// InvalidRequest: an argument is malformed or over a limit.
	InvalidRequest Code = "invalid-request"
	// InternalError: the host or the agent failed.
	InternalError Code = "internal-error"
	// NotFound: nothing has that name.
	NotFound Code = "not-found"
	// AlreadyExists: something has that name already.
	AlreadyExists Code = "already-exists"
	// NotADirectory: a directory was needed and something else is there.
	NotADirectory Code = "not-a-directory"
	// NotAFile: a regular file was needed and something else is there.
	NotAFile Code = "not-a-file"
	// NotEmpty: the directory holds entries.
	NotEmpty Code = "not-empty"
	// TooLarge: the answer is over a limit; the message names it and the way round.
	TooLarge Code = "too-large"
	// UnknownOutcome: the host stopped while the call was under way and cannot
	// know whether it took effect.
	UnknownOutcome Code = "unknown-outcome"
)

// codes is every code in the order of the contract, which counts them.
var codes = [...]Code{
	PermissionDenied, LeaseSubsetViolation, LeaseExpired, BudgetExhausted, JobNotFound, AgentNotAvailable,
	AgentVersionNotAvailable, Cancelled, Timeout, InvalidRequest, InternalError, NotFound, AlreadyExists,
	NotADirectory, NotAFile, NotEmpty, TooLarge, UnknownOutcome,
}

// Error gives the code's spelling.
func (c Code) Error() string { return string(c) }

// EndsTheJob tells whether the job can do nothing more: cancelled, out of time
// or out of money. Every further operation would be answered the same way, so
// an agent that tolerates errors of single files stops at these.
func (c Code) EndsTheJob() bool { return c == Cancelled || c == LeaseExpired || c == BudgetExhausted }

// number gives the code as the contract counts it; what is no code of the
// contract is an internal error.
func (c Code) number() uint8 {
	for number, code := range codes {
		if c == code {
			return uint8(number)
		}
	}
	return InternalError.number()
}

// Error is a code and a sentence: what the host answers, and what an agent ends
// its job with. Clients read the message, so it holds no secret.
type Error struct {
	Code    Code
	Message string
}

// Errorf makes an error from a format string and its arguments.
//
//	return agent.Errorf(agent.InvalidRequest, "input: name: must not be empty")
func Errorf(code Code, format string, arguments ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, arguments...)}
}

// Error gives the code and the message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is tells whether the target is the error's code, or the error of the standard
// library that says the same: [fs.ErrNotExist], [fs.ErrExist],
// [fs.ErrPermission], [context.Canceled] or [context.DeadlineExceeded].
func (e *Error) Is(target error) bool {
	if code, ok := target.(Code); ok {
		return e.Code == code
	}
	for _, same := range standard {
		if e.Code == same.code && target == same.err {
			return true
		}
	}
	return false
}

// standard is which errors of the standard library say what a code says.
var standard = [...]struct {
	code Code
	err  error
}{
	{NotFound, fs.ErrNotExist},
	{AlreadyExists, fs.ErrExist},
	{PermissionDenied, fs.ErrPermission},
	{Cancelled, context.Canceled},
	{Timeout, context.DeadlineExceeded},
}

// CodeOf gives the code that an error stands for: that of the [Error] or Code
// in its chain, of an error of the standard library that says the same, and
// [InternalError] for anything else.
func CodeOf(err error) Code {
	var with *Error
	if errors.As(err, &with) {
		return with.Code
	}
	var code Code
	if errors.As(err, &code) {
		return code
	}
	for _, same := range standard {
		if errors.Is(err, same.err) {
			return same.code
		}
	}
	return InternalError
}

func init() {
	host.NewError = func(number uint8, message string) error {
		if int(number) >= len(codes) {
			return &Error{Code: InternalError, Message: message}
		}
		return &Error{Code: codes[number], Message: message}
	}
}
