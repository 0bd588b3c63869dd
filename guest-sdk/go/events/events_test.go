//go:build !wasip1

package events

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

func logged(t *testing.T) *[]string {
	log := host.Log
	t.Cleanup(func() { host.Log = log })
	lines := new([]string)
	host.Log = func(level uint8, message string) { *lines = append(*lines, fmt.Sprint(level, " ", message)) }
	return lines
}

func TestRecordsOfSlogBecomeLogEvents(t *testing.T) {
	lines := logged(t)
	logger := slog.New(NewHandler(nil))
	logger.Info("read", "path", "/w/a b", "bytes", 12)
	logger.Debug("not told")
	logger.With("part", 2).WithGroup("http").Warn("slow", "after", time.Second)
	logger.Error("")
	logger.Log(t.Context(), slog.LevelError+4, "worse")
	all := slog.New(NewHandler(&slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
			if attr.Key == "key" {
				return slog.String("key", "hidden")
			}
			return attr
		},
	}))
	all.Debug("told", "key", "secret", "time", 7)
	if expected := []string{
		`1 read path="/w/a b" bytes=12`, "2 slow part=2 http.after=1s", "3 ", "3 worse", "0 told key=hidden",
	}; !slices.Equal(*lines, expected) {
		t.Errorf("%q", *lines)
	}
}

func TestLevelsAreTheContracts(t *testing.T) {
	lines := logged(t)
	Debugf("%d%%", 1)
	Infof("i")
	Warnf("w")
	Errorf("e")
	if !slices.Equal(*lines, []string{"0 1%", "1 i", "2 w", "3 e"}) {
		t.Errorf("%q", *lines)
	}
}

func text(value *string) string {
	if value == nil {
		return "-"
	}
	return *value
}

func TestWhatIsEmptyIsNotTold(t *testing.T) {
	var told []string
	status, progress, artifact, vendor := host.Status, host.Progress, host.ArtifactRef, host.Vendor
	defer func() { host.Status, host.Progress, host.ArtifactRef, host.Vendor = status, progress, artifact, vendor }()
	host.Status = func(phase string, message *string) error {
		told = append(told, phase+" "+text(message))
		return nil
	}
	host.Progress = func(current uint64, total *uint64, units, message *string) error {
		told = append(told, fmt.Sprint(current, " ", total != nil && *total == 4, " ", text(units), " ", text(message)))
		return nil
	}
	host.ArtifactRef = func(a host.Artifact) error {
		empty := a.ByteSize != nil && *a.ByteSize == 0
		told = append(told, fmt.Sprint(a.URI, " ", a.ContentType, " ", empty, " ", text(a.SHA256)))
		return nil
	}
	host.Vendor = func(kind, body string) error { told = append(told, kind+" "+body); return nil }

	Status("reading", "")
	Status("reading", "it")
	Progress(1, 4, "steps", "")
	Progress(1, 0, "", "x")
	Artifact("file:///a", "text/plain")
	Artifact("file:///a", "text/plain", Size(0), SHA256("00"))
	Vendor("x-vendor.a.b", map[string]int{"n": 1})
	if err := Vendor("x-vendor.a.b", make(chan int)); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
	if expected := []string{
		"reading -", "reading it", "1 true steps -", "1 false - x", "file:///a text/plain false -",
		"file:///a text/plain true 00", `x-vendor.a.b {"n":1}`,
	}; !slices.Equal(told, expected) {
		t.Errorf("%q", told)
	}
}
