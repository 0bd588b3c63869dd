package events

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
)

// Handler is a [slog.Handler] whose records become `log` events: the message,
// and the attributes after it as key=value. The host notes the time itself.
//
//	slog.SetDefault(slog.New(events.NewHandler(nil)))
//	slog.Info("read", "path", path, "bytes", len(text))
type Handler struct {
	// text writes into line. It is shared by the handlers made of this one
	// with attributes, and an agent has one thread.
	text slog.Handler
	line *bytes.Buffer
}

// NewHandler makes a handler. The options are those of [slog.NewTextHandler],
// and nil are the defaults: everything from level info on.
func NewHandler(options *slog.HandlerOptions) *Handler {
	if options == nil {
		options = &slog.HandlerOptions{}
	}
	own := *options
	replace := own.ReplaceAttr
	own.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && (attr.Key == slog.TimeKey || attr.Key == slog.LevelKey || attr.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		if replace != nil {
			return replace(groups, attr)
		}
		return attr
	}
	line := new(bytes.Buffer)
	return &Handler{text: slog.NewTextHandler(line, &own), line: line}
}

// Enabled tells whether records of a level are told.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

// Handle emits a record.
func (h *Handler) Handle(ctx context.Context, record slog.Record) error {
	h.line.Reset()
	if err := h.text.Handle(ctx, record); err != nil {
		return err
	}
	message := record.Message
	if attributes := strings.TrimSpace(h.line.String()); attributes != "" {
		message = strings.TrimSpace(message + " " + attributes)
	}
	Log(levelOf(record.Level), message)
	return nil
}

// WithAttrs makes a handler that adds attributes to each record.
func (h *Handler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return &Handler{text: h.text.WithAttrs(attributes), line: h.line}
}

// WithGroup makes a handler that puts what comes after it into a group.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{text: h.text.WithGroup(name), line: h.line}
}

func levelOf(level slog.Level) Level {
	switch {
	case level < slog.LevelInfo:
		return LevelDebug
	case level < slog.LevelWarn:
		return LevelInfo
	case level < slog.LevelError:
		return LevelWarn
	default:
		return LevelError
	}
}
