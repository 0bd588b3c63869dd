//go:build !wasip1

package output

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

// pretend notes how much each call hands over.
func pretend(t *testing.T, refusal error) *[]int {
	text, bytes, finish := host.WriteText, host.WriteBytes, host.FinishOutput
	t.Cleanup(func() { host.WriteText, host.WriteBytes, host.FinishOutput = text, bytes, finish })
	sent := new([]int)
	host.WriteText = func(text string) error { *sent = append(*sent, len(text)); return refusal }
	host.WriteBytes = func(bytes []byte) error { *sent = append(*sent, len(bytes)); return refusal }
	host.FinishOutput = func() error { *sent = append(*sent, -1); return refusal }
	return sent
}

func TestSmallWritesBecomeFewCallsAndNoneIsLost(t *testing.T) {
	sent := pretend(t, nil)
	for _, writer := range []interface {
		Write([]byte) (int, error)
		Flush() error
		Close() error
	}{new(Writer), new(TextWriter)} {
		*sent = nil
		for range 3 {
			if n, err := writer.Write([]byte(strings.Repeat("é", 15_000))); n != 30_000 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if err := errors.Join(writer.Flush(), writer.Flush()); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(writer, "the %s", "end")
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(*sent, []int{90_000, 7, -1}) {
			t.Errorf("%T: %v", writer, *sent)
		}
	}
}

func TestACharacterIsNeverCut(t *testing.T) {
	sent := pretend(t, nil)
	var writer TextWriter
	for _, row := range []struct {
		part string
		sent []int
	}{
		{"a", []int{1}},
		{"\xf0\x9f", nil},
		{"\x98", nil},
		{"\x80b", []int{5}},
		{"é\xc3", []int{2}},
		{"\xa9", []int{2}},
	} {
		*sent = nil
		writer.Write([]byte(row.part))
		if err := writer.Flush(); err != nil || !slices.Equal(*sent, row.sent) {
			t.Errorf("%q: %v, %v", row.part, *sent, err)
		}
	}
	writer.WriteString("\xe2\x82")
	if err := writer.Close(); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("half a character: %v", err)
	}
	var wrong TextWriter
	wrong.WriteString("a\xffb")
	if err := wrong.Flush(); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("what is no text: %v", err)
	}
}

func TestARefusalReachesTheAgentAndStays(t *testing.T) {
	sent := pretend(t, host.NewError(16, "256 MiB are enough"))
	var writer TextWriter
	if _, err := writer.WriteString(strings.Repeat("x", gathered)); !errors.Is(err, agent.TooLarge) {
		t.Errorf("%v", err)
	}
	if _, err := writer.WriteString("x"); !errors.Is(err, agent.TooLarge) {
		t.Errorf("%v", err)
	}
	if err := writer.Close(); !errors.Is(err, agent.TooLarge) || len(*sent) != 1 {
		t.Errorf("%v after %v", err, *sent)
	}
}
