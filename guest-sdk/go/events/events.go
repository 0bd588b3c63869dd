// Package events is what an agent tells those who watch its job. It needs no
// grant.
//
// An event is stored before anyone sees it. Texts are cut at the host's event
// limit (default 16 KiB a text), with a mark at the cut. When an agent emits
// faster than the host stores, its call takes longer.
package events

import (
	"encoding/json"
	"fmt"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

// Level says how much a log event matters.
type Level uint8

// The levels, from the least.
const (
	LevelDebug = Level(host.LevelDebug)
	LevelInfo  = Level(host.LevelInfo)
	LevelWarn  = Level(host.LevelWarn)
	LevelError = Level(host.LevelError)
)

// Log emits a `log` event.
func Log(level Level, message string) { host.Log(uint8(level), message) }

// Debugf emits a `log` event at level debug.
func Debugf(format string, arguments ...any) { Log(LevelDebug, fmt.Sprintf(format, arguments...)) }

// Infof emits a `log` event at level info.
func Infof(format string, arguments ...any) { Log(LevelInfo, fmt.Sprintf(format, arguments...)) }

// Warnf emits a `log` event at level warn.
func Warnf(format string, arguments ...any) { Log(LevelWarn, fmt.Sprintf(format, arguments...)) }

// Errorf emits a `log` event at level error. It makes no error: that is
// [agent.Errorf].
func Errorf(format string, arguments ...any) { Log(LevelError, fmt.Sprintf(format, arguments...)) }

// Thought emits a `thought` event: reasoning that explains what comes next.
func Thought(text string) { host.Thought(text) }

// Status emits a `status` event: the job has entered a phase. The message may
// be empty.
//
// The phases `back_pressure`, `credential_rotated` and `lease_expired` are the
// host's own and are [agent.InvalidRequest].
func Status(phase, message string) error { return host.Status(phase, given(message)) }

// Progress emits a `progress` event: so much is done. A total of 0 is one that
// is not known; units and message may be empty.
//
// A current over the total is [agent.InvalidRequest].
func Progress(current, total uint64, units, message string) error {
	var known *uint64
	if total > 0 {
		known = &total
	}
	return host.Progress(current, known, given(units), given(message))
}

func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// ArtifactOption says more of an artifact.
type ArtifactOption func(*host.Artifact)

// Size says how many bytes the artifact has.
func Size(bytes uint64) ArtifactOption {
	return func(artifact *host.Artifact) { artifact.ByteSize = &bytes }
}

// SHA256 says the artifact's digest, as 64 hexadecimal digits.
func SHA256(digest string) ArtifactOption {
	return func(artifact *host.Artifact) { artifact.SHA256 = &digest }
}

// Artifact emits an `artifact_ref` event: something was made and can be found
// at a URI.
//
//	err := events.Artifact("file:///outbox/report.md", "text/markdown", events.Size(1204))
func Artifact(uri, contentType string, options ...ArtifactOption) error {
	artifact := host.Artifact{URI: uri, ContentType: contentType}
	for _, option := range options {
		option(&artifact)
	}
	return host.ArtifactRef(artifact)
}

// Vendor emits an event of the agent's own kind, `x-vendor.<vendor>.<name>`,
// whose body becomes a JSON object.
func Vendor(kind string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return agent.Errorf(agent.InvalidRequest, "%s: %v", kind, err)
	}
	return host.Vendor(kind, string(text))
}
