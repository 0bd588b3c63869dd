package types

import "testing"

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestAnOptionAndAResultAreOneOfTwo(t *testing.T) {
	some, none := Some("x"), None[string]()
	if some.Tag() != OptionSome || some.Some() != "x" || none.Tag() != OptionNone {
		t.Error("options")
	}
	if _, ok := none.Get(); ok || !panics(func() { none.Some() }) {
		t.Error("none has a value")
	}
	// Of the same type on both sides: the tag tells them apart, not the type.
	ok, failed := Ok[string, string]("x"), Err[string]("y")
	if ok.Tag() != ResultOk || ok.Ok() != "x" || failed.Tag() != ResultErr || failed.Err() != "y" {
		t.Error("results")
	}
	if !panics(func() { ok.Err() }) || !panics(func() { failed.Ok() }) {
		t.Error("a result is both")
	}
}
