// Counts the lines and words of a text file, and finds its longest word.
package main

import (
	"context"
	"strings"
	"unicode/utf8"

	"leasehold.dev/agent"
	"leasehold.dev/agent/events"
	"leasehold.dev/agent/fs"
)

// Input is the `input` of a job.
type Input struct {
	Path string `json:"path"`
}

// Report is its result.
type Report struct {
	Lines   int    `json:"lines"`
	Words   int    `json:"words"`
	Longest string `json:"longest"`
}

func init() { agent.Run(run) }

func main() {}

func run(_ context.Context, in Input) (*Report, error) {
	if in.Path == "" {
		return nil, agent.Errorf(agent.InvalidRequest, "input: path: is missing")
	}
	events.Infof("reading %s", in.Path)
	// The one line that needs a grant: `fs.read` on the path. Without it the
	// host answers permission-denied, and the job ends with that.
	text, err := fs.ReadFile(in.Path)
	if err != nil {
		return nil, err
	}
	if err := events.Progress(1, 2, "steps", "read"); err != nil {
		return nil, err
	}
	report := examine(string(text))
	if err := events.Progress(2, 2, "steps", "counted"); err != nil {
		return nil, err
	}
	return &report, nil
}

// examine is everything that needs no host, so that `go test` can try it.
func examine(text string) Report {
	report := Report{Lines: strings.Count(text, "\n")}
	if text != "" && !strings.HasSuffix(text, "\n") {
		report.Lines++
	}
	for _, word := range strings.Fields(text) {
		report.Words++
		if utf8.RuneCountInString(word) >= utf8.RuneCountInString(report.Longest) {
			report.Longest = word
		}
	}
	return report
}
