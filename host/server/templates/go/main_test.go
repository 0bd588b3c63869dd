package main

import "testing"

func TestLinesAndWordsAreCountedAndTheLongestWordIsFound(t *testing.T) {
	for _, row := range []struct {
		text     string
		expected Report
	}{
		{"", Report{0, 0, ""}},
		{"one", Report{1, 1, "one"}},
		{"one three\ntwo\n", Report{2, 3, "three"}},
		{"größe pretty", Report{1, 2, "pretty"}}, // by characters, not by bytes
	} {
		if report := examine(row.text); report != row.expected {
			t.Errorf("%q: %+v", row.text, report)
		}
	}
}
