// Package output is a result too large for one message, streamed. It needs no
// grant.
//
// A job that wrote anything here has a streamed result: its function then
// returns nil or a string, the summary. Text and bytes cannot be mixed in one
// result.
package output

import (
	"unicode/utf8"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

// gathered is how much a writer gathers before it calls the host.
const gathered = 64 * 1024

// WriteText adds text to the result, at once.
//
// It fails with [agent.TooLarge] over the host's limit (default 256 MiB), and
// with [agent.InvalidRequest] after [Finish], after bytes, or for what is not
// UTF-8.
func WriteText(text string) error { return host.WriteText(text) }

// WriteBytes adds bytes to the result, at once.
//
// It fails with [agent.TooLarge] over the host's limit (default 256 MiB), and
// with [agent.InvalidRequest] after [Finish] or after text.
func WriteBytes(bytes []byte) error { return host.WriteBytes(bytes) }

// Finish ends the result; the host does so itself when the agent returns. A
// second time is [agent.InvalidRequest].
func Finish() error { return host.FinishOutput() }

// Writer is an [io.Writer] into the result, as bytes. It gathers up to 64 KiB:
// what it holds is lost without [Writer.Flush] or [Writer.Close].
//
// The zero Writer is ready to use.
type Writer struct {
	held []byte
	err  error
}

// Write adds bytes. An error of an earlier call comes again.
func (w *Writer) Write(bytes []byte) (int, error) {
	return write(&w.held, &w.err, bytes, w.Flush)
}

// Flush hands over what was gathered, so that watchers see it now.
func (w *Writer) Flush() error {
	if w.err == nil && len(w.held) > 0 {
		w.err = WriteBytes(w.held)
		w.held = w.held[:0]
	}
	return w.err
}

// Close writes what is left and ends the result.
func (w *Writer) Close() error {
	if err := w.Flush(); err != nil {
		return err
	}
	w.err = Finish()
	return w.err
}

// TextWriter is an [io.Writer] into the result, as text: fmt.Fprintf, json.NewEncoder
// and text/template write to it. It gathers up to 64 KiB: what it holds is lost
// without [TextWriter.Flush] or [TextWriter.Close].
//
// What is written must be UTF-8; a character may be cut between two writes.
// The zero TextWriter is ready to use.
type TextWriter struct {
	held []byte
	err  error
}

// Write adds text. An error of an earlier call comes again.
func (w *TextWriter) Write(text []byte) (int, error) {
	return write(&w.held, &w.err, text, w.flushWhole)
}

// WriteString adds text.
func (w *TextWriter) WriteString(text string) (int, error) { return w.Write([]byte(text)) }

// flushWhole hands over all but the beginning of a character whose end is still
// to come.
func (w *TextWriter) flushWhole() error {
	if w.err != nil {
		return w.err
	}
	whole := len(w.held)
	for back := 1; back < utf8.UTFMax && back <= len(w.held); back++ {
		if utf8.RuneStart(w.held[len(w.held)-back]) {
			if !utf8.FullRune(w.held[len(w.held)-back:]) {
				whole = len(w.held) - back
			}
			break
		}
	}
	if whole > 0 {
		if !utf8.Valid(w.held[:whole]) {
			w.err = agent.Errorf(agent.InvalidRequest, "the text is not UTF-8")
			return w.err
		}
		w.err = WriteText(string(w.held[:whole]))
		w.held = append(w.held[:0], w.held[whole:]...)
	}
	return w.err
}

// Flush hands over what was gathered, so that watchers see it now. A character
// whose end was not written yet stays behind.
func (w *TextWriter) Flush() error { return w.flushWhole() }

// Close writes what is left and ends the result.
func (w *TextWriter) Close() error {
	if err := w.flushWhole(); err != nil {
		return err
	}
	if len(w.held) > 0 {
		w.err = agent.Errorf(agent.InvalidRequest, "the text ends inside a character")
		return w.err
	}
	w.err = Finish()
	return w.err
}

func write(held *[]byte, failed *error, more []byte, flush func() error) (int, error) {
	if *failed != nil {
		return 0, *failed
	}
	*held = append(*held, more...)
	if len(*held) >= gathered {
		if err := flush(); err != nil {
			return 0, err
		}
	}
	return len(more), nil
}
