// Uses everything an agent can touch: files, services, other agents, money and
// a streamed result.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/calls"
	"leasehold.dev/agent/delegate"
	"leasehold.dev/agent/events"
	"leasehold.dev/agent/fs"
	"leasehold.dev/agent/job"
	"leasehold.dev/agent/metrics"
	"leasehold.dev/agent/model"
	"leasehold.dev/agent/net"
	"leasehold.dev/agent/output"
	"leasehold.dev/agent/tool"
)

// Input is what a client sends: the address of a server to ask, or that the
// agent is to wait until it is cancelled.
type Input struct {
	URL  string `json:"url"`
	Wait bool   `json:"wait"`
}

func init() { agent.Run(run) }

func main() {}

func run(_ context.Context, in Input) (string, error) {
	if in.Wait {
		return "", wait()
	}
	for _, part := range []func(base string) error{files, services, delegation, money, end} {
		if err := part(in.URL); err != nil {
			return "", err
		}
	}
	return "survey complete", nil
}

// wait looks whether it is asked to cancel, until it is.
func wait() error {
	if err := events.Status("waiting", ""); err != nil {
		return err
	}
	for !job.Cancelled() {
		time.Sleep(20 * time.Millisecond)
	}
	events.Infof("cancellation noticed")
	return agent.Errorf(agent.Cancelled, "stopped as asked")
}

// refused gives the code of a refusal, and fails where none came.
func refused(what string, err error) (agent.Code, error) {
	var refusal *agent.Error
	if !errors.As(err, &refusal) {
		return "", agent.Errorf(agent.InternalError, "%s was not refused: %v", what, err)
	}
	return refusal.Code, nil
}

func files(string) error {
	events.Infof("survey begins")
	if err := events.Status("files", "what the lease shows"); err != nil {
		return err
	}

	entries, err := fs.ReadDir("/workspace/letters")
	if err != nil {
		return err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	events.Infof("letters: %s", strings.Join(names, ", "))

	notes, err := fs.Stat("/workspace/notes.md")
	if err != nil {
		return err
	}
	kind := "file"
	if !notes.Mode().IsRegular() {
		kind = "no file"
	}
	events.Infof("%s: %s, %d bytes", notes.Name(), kind, notes.Size())
	text, err := fs.ReadFile("/workspace/notes.md")
	if err != nil {
		return err
	}
	events.Infof("notes.md: %d lines", bytes.Count(text, []byte("\n")))
	part, err := fs.ReadRange("/workspace/notes.md", 2, 5)
	if err != nil {
		return err
	}
	events.Infof("from 2: %s", part)

	if err := fs.WriteFile("/outbox/survey.txt", []byte("first\n")); err != nil {
		return err
	}
	if err := fs.Append("/outbox/survey.txt", []byte("second\n")); err != nil {
		return err
	}
	written, err := fs.ReadFile("/outbox/survey.txt")
	if err != nil {
		return err
	}
	events.Infof("outbox: %d bytes", len(written))
	if err := fs.Mkdir("/outbox/made"); err != nil {
		return err
	}
	if err := fs.Remove("/outbox/made"); err != nil {
		return err
	}
	events.Infof("made and removed")
	if err := events.Artifact("file:///outbox/survey.txt", "text/plain", events.Size(uint64(len(written)))); err != nil {
		return err
	}

	_, err = fs.ReadFile("/private/key.txt")
	code, err := refused("the key", err)
	if err != nil {
		return err
	}
	events.Warnf("denied: %s", code)
	_, err = fs.ReadFile("/workspace/missing.md")
	code, err = refused("what is missing", err)
	if err != nil {
		return err
	}
	events.Infof("missing: %s", code)
	return events.Progress(1, 4, "steps", "files")
}

func services(base string) error {
	if err := events.Status("services", ""); err != nil {
		return err
	}
	events.Thought("the operator offers tools and models")
	for _, service := range []func(base string) error{tools, requests, race, streams, models} {
		if err := service(base); err != nil {
			return err
		}
	}
	return events.Progress(2, 4, "steps", "services")
}

func tools(string) error {
	offered, err := tool.List()
	if err != nil {
		return err
	}
	var names []string
	for _, tool := range offered {
		names = append(names, tool.Name)
	}
	events.Infof("tools: %s", strings.Join(names, ", "))

	type text struct {
		Text string `json:"text"`
	}
	large, err := tool.Call[text]("upper", text{"lease"})
	if err != nil {
		return err
	}
	events.Infof("upper: %s", large.Text)
	_, err = tool.Call[text]("upper", struct{}{})
	code, err := refused("a call without text", err)
	if err != nil {
		return err
	}
	events.Warnf("refused: %s", code)
	return nil
}

func requests(base string) error {
	page, err := net.Fetch(net.Request{URL: base + "/page", Header: net.Header{"X-Survey": {"yes"}}})
	if err != nil {
		return err
	}
	events.Infof("page: %d, %s", page.Status, page.Body)

	type numbered struct {
		N int `json:"n"`
	}
	request, err := net.JSON("POST", base+"/echo", numbered{1})
	if err != nil {
		return err
	}
	answer, err := net.Fetch(request)
	if err != nil {
		return err
	}
	var echo numbered
	if err := answer.JSON(&echo); err != nil {
		return err
	}
	events.Infof("echo: %d", echo.N)

	missing, err := net.Get(base + "/missing")
	if err != nil {
		return err
	}
	events.Infof("missing page: %d", missing.Status)
	return nil
}

// race has two calls under way at once, and gives a third one up.
func race(base string) error {
	slow, err := net.Start(net.Request{URL: base + "/slow"})
	if err != nil {
		return err
	}
	fast, err := net.Start(net.Request{URL: base + "/fast"})
	if err != nil {
		return err
	}
	first, err := calls.WaitAny(slow, fast)
	if err != nil {
		return err
	}
	events.Infof("first: %d", first)
	page, err := fast.Finish()
	if err != nil {
		return err
	}
	events.Infof("fast: %s", page.Body)
	if _, err := net.Get(base + "/release"); err != nil {
		return err
	}
	page, err = slow.Finish()
	if err != nil {
		return err
	}
	events.Infof("slow: %s", page.Body)

	never, err := net.Start(net.Request{URL: base + "/never"})
	if err != nil {
		return err
	}
	_, ok, err := calls.WaitAnyFor(20*time.Millisecond, never)
	if err != nil {
		return err
	}
	if ok {
		events.Infof("in time: yes")
	} else {
		events.Infof("in time: no")
	}
	return never.Close()
}

func streams(base string) error {
	parts, err := net.Open(net.Request{URL: base + "/parts"})
	if err != nil {
		return err
	}
	defer parts.Close()
	read, err := io.Copy(io.Discard, parts)
	if err != nil {
		return err
	}
	events.Infof("parts: %d bytes", read)
	return nil
}

func models(string) error {
	offered, err := model.List()
	if err != nil {
		return err
	}
	events.Infof("models: %s", strings.Join(offered, ", "))

	question := func(text string) model.Request {
		return model.Request{Messages: []model.Message{{Role: "user", Content: text}}, MaxTokens: 16}
	}
	answer, err := model.Complete("tier-fast/small", question("say lease"))
	if err != nil {
		return err
	}
	text, _ := answer.Text()
	events.Infof("model: %s", text)

	streamed, err := inParts("tier-fast/small", question("say it in parts"))
	if err != nil {
		return err
	}
	events.Infof("streamed: %s", strings.TrimSpace(streamed))
	return nil
}

// inParts asks a model for an answer in parts, and joins them.
func inParts(name string, request model.Request) (string, error) {
	stream, err := model.Open(name, request)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var answer strings.Builder
	for {
		words, err := stream.NextText()
		if err == io.EOF {
			return answer.String(), nil
		}
		if err != nil {
			return "", err
		}
		answer.WriteString(words)
	}
}

func delegation(string) error {
	if err := events.Status("delegation", ""); err != nil {
		return err
	}
	type message struct {
		From string `json:"from"`
	}
	task := func(from string) delegate.Task {
		lease := map[string][]string{"cost.budget": {"USD:0.10"}}
		return delegate.Task{Agent: "echo", Input: message{from}, Lease: lease}
	}
	echo, err := delegate.Run[message](task("survey"))
	if err != nil {
		return err
	}
	events.Infof("echo: %s", echo.From)

	started, err := delegate.Start[message](task("start"))
	if err != nil {
		return err
	}
	if _, err := calls.WaitAny(started); err != nil {
		return err
	}
	if echo, err = started.Finish(); err != nil {
		return err
	}
	events.Infof("started: %s", echo.From)

	for _, task := range []delegate.Task{
		{Agent: "echo", Lease: map[string][]string{"fs.read": {"/**"}}},
		{Agent: "nobody"},
	} {
		_, err := delegate.Run[json.RawMessage](task)
		code, err := refused("the task", err)
		if err != nil {
			return err
		}
		events.Warnf("refused: %s", code)
	}
	return events.Progress(3, 4, "steps", "delegation")
}

func money(base string) error {
	if err := events.Status("money", ""); err != nil {
		return err
	}
	steps := []metrics.Option{metrics.Unit("steps"), metrics.Dimension("kind", "done")}
	if err := metrics.Emit("survey.steps", "3", steps...); err != nil {
		return err
	}
	held, err := net.Get(base + "/hold")
	if err != nil {
		return err
	}
	events.Infof("held: %s", held.Body)

	if err := metrics.Cost("inference", "0.25", "USD"); err != nil {
		return err
	}
	for _, amount := range job.Budget() {
		left, ok := new(big.Rat).SetString(amount.Left)
		if ok && amount.Currency == "USD" && left.Cmp(big.NewRat(76, 100)) < 0 {
			events.Infof("budget: less")
		}
	}
	if err := metrics.Cost("inference", "5", "USD"); err != nil {
		return err
	}
	_, err = fs.ReadFile("/workspace/notes.md")
	code, err := refused("a file without money", err)
	if err != nil {
		return err
	}
	events.Warnf("refused: %s", code)
	return nil
}

func end(string) error {
	if err := events.Vendor("x-vendor.leasehold.survey", map[string]int{"steps": 26}); err != nil {
		return err
	}
	fmt.Println("printed")
	if err := events.Progress(4, 4, "steps", "money"); err != nil {
		return err
	}
	for _, text := range []string{"one\n", "two\n", "three\n"} {
		if err := output.WriteText(text); err != nil {
			return err
		}
	}
	return output.Finish()
}
