//go:build !wasip1

package fs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

var tree = map[string]string{
	"/w/a/deep/leaf.txt": "leaf",
	"/w/a/empty.txt":     "",
	"/w/digits.txt":      strings.Repeat("0123456789", 30_000),
	"/w/zoë.md":          "# Zoë\n",
}

func failure(number uint8, path string) error { return host.NewError(number, path) }

// pretend makes a host of the tree, whose lease covers what is under /w.
func pretend(t *testing.T) {
	read, readRange, list, stat := host.Read, host.ReadRange, host.List, host.Stat
	t.Cleanup(func() { host.Read, host.ReadRange, host.List, host.Stat = read, readRange, list, stat })

	host.List = func(path string) ([]host.Entry, error) {
		var entries []host.Entry
		for name, text := range tree {
			if below, ok := strings.CutPrefix(name, path+"/"); ok {
				name, _, isDir := strings.Cut(below, "/")
				entry := host.Entry{Name: name, Kind: host.KindFile, Size: uint64(len(text))}
				if isDir {
					entry = host.Entry{Name: name, Kind: host.KindDirectory}
				}
				entries = append(entries, entry)
			}
		}
		if _, isFile := tree[path]; isFile {
			return nil, failure(13, path)
		}
		if len(entries) == 0 {
			return nil, failure(11, path)
		}
		slices.SortFunc(entries, func(a, b host.Entry) int { return strings.Compare(a.Name, b.Name) })
		return slices.Compact(entries), nil
	}
	host.Stat = func(path string) (host.Metadata, error) {
		if !strings.HasPrefix(path, "/w") {
			return host.Metadata{}, failure(0, path)
		}
		if text, ok := tree[path]; ok {
			return host.Metadata{Kind: host.KindFile, Size: uint64(len(text)), Modified: "2026-05-13T19:30:00.020Z"}, nil
		}
		if _, err := host.List(path); err != nil {
			return host.Metadata{}, err
		}
		return host.Metadata{Kind: host.KindDirectory, Modified: "2026-05-13T19:30:00.000Z"}, nil
	}
	host.Read = func(path string) ([]byte, error) {
		metadata, err := host.Stat(path)
		if err == nil && metadata.Kind != host.KindFile {
			err = failure(14, path)
		}
		return []byte(tree[path]), err
	}
	host.ReadRange = func(path string, offset, length uint64) ([]byte, error) {
		text, ok := tree[path]
		if !ok {
			return nil, failure(11, path)
		}
		if offset >= uint64(len(text)) {
			return nil, nil
		}
		return []byte(text[offset:min(offset+length, uint64(len(text)))]), nil
	}
}

func TestDirFSIsAFileSystem(t *testing.T) {
	pretend(t)
	if err := fstest.TestFS(DirFS("/w"), "a/deep/leaf.txt", "a/empty.txt", "digits.txt", "zoë.md"); err != nil {
		t.Error(err)
	}
	sub, err := fs.Sub(DirFS("/w"), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(sub, "deep/leaf.txt", "empty.txt"); err != nil {
		t.Error(err)
	}
}

func TestARefusalIsFoundInWhatAFileSystemReturns(t *testing.T) {
	pretend(t)
	for _, row := range []struct {
		fsys  fs.FS
		name  string
		code  agent.Code
		known error
	}{
		{DirFS("/w"), "missing", agent.NotFound, fs.ErrNotExist},
		{DirFS("/private"), "key.txt", agent.PermissionDenied, fs.ErrPermission},
		{DirFS("/"), "private/key.txt", agent.PermissionDenied, fs.ErrPermission},
	} {
		for how, try := range map[string]func() error{
			"open": func() error { _, err := row.fsys.Open(row.name); return err },
			"read": func() error { _, err := fs.ReadFile(row.fsys, row.name); return err },
			"stat": func() error { _, err := fs.Stat(row.fsys, row.name); return err },
		} {
			err := try()
			var path *fs.PathError
			if !errors.Is(err, row.code) || !errors.Is(err, row.known) || !errors.As(err, &path) || path.Path != row.name {
				t.Errorf("%s %s: %v", how, row.name, err)
			}
		}
	}
	if _, err := DirFS("/w").Open("../private"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if _, err := fs.ReadFile(DirFS("/w"), "a"); !errors.Is(err, agent.NotAFile) {
		t.Errorf("%v", err)
	}
	if _, err := fs.ReadDir(DirFS("/w"), "zoë.md"); !errors.Is(err, agent.NotADirectory) {
		t.Errorf("%v", err)
	}
	if _, err := Open("/w/a"); !errors.Is(err, agent.NotAFile) {
		t.Errorf("%v", err)
	}
}

func TestAFileIsReadFromWhereOneIs(t *testing.T) {
	pretend(t)
	file, err := Open("/w/digits.txt")
	if err != nil {
		t.Fatal(err)
	}
	three := make([]byte, 3)
	for _, row := range []struct {
		offset   int64
		whence   int
		at       int64
		expected string
	}{
		{3, io.SeekStart, 3, "345"},
		{1, io.SeekCurrent, 7, "789"},
		{-8, io.SeekCurrent, 2, "234"},
		{-2, io.SeekEnd, 299_998, "89"},      // shorter at the end
		{5, io.SeekEnd, 300_005, ""},         // beyond the end
		{262_143, io.SeekStart, 262_143, ""}, // read below
	} {
		at, err := file.Seek(row.offset, row.whence)
		if at != row.at || err != nil {
			t.Fatalf("%d, %v", at, err)
		}
		if row.expected == "" {
			continue
		}
		read, _ := io.ReadFull(file, three)
		if string(three[:read]) != row.expected {
			t.Errorf("%d: %s", row.at, three[:read])
		}
	}
	if _, err := io.ReadFull(file, three); string(three) != "345" || err != nil {
		t.Errorf("across the buffer's end: %s, %v", three, err)
	}
	if read, err := file.ReadAt(three, 299_998); read != 2 || err != io.EOF || string(three[:2]) != "89" {
		t.Errorf("%d, %v", read, err)
	}
	if _, err := file.Seek(-300_001, io.SeekEnd); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
	if _, err := file.ReadAt(three, -1); !errors.Is(err, agent.InvalidRequest) {
		t.Errorf("%v", err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	if _, err := file.Read(three); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("%v", err)
	}

	file, _ = Open("/w/digits.txt")
	if err := iotest.TestReader(file, []byte(tree["/w/digits.txt"])); err != nil {
		t.Error(err)
	}
}

func TestChangesGoToTheHostAsTheyAre(t *testing.T) {
	var done []string
	note := func(what string) func(string, []byte) error {
		return func(path string, contents []byte) error {
			done = append(done, what+" "+path+" "+string(contents))
			return failure(15, path)
		}
	}
	write, add, create, remove := host.Write, host.Append, host.CreateDir, host.Remove
	defer func() { host.Write, host.Append, host.CreateDir, host.Remove = write, add, create, remove }()
	host.Write, host.Append = note("write"), note("append")
	host.CreateDir = func(path string) error { return note("mkdir")(path, nil) }
	host.Remove = func(path string) error { return note("remove")(path, nil) }

	for _, err := range []error{
		WriteFile("/w/x", []byte("one")), Append("/w/x", []byte("two")), Mkdir("/w/d"), Remove("/w/d"),
	} {
		if !errors.Is(err, agent.NotEmpty) {
			t.Errorf("%v", err)
		}
	}
	if !slices.Equal(done, []string{"write /w/x one", "append /w/x two", "mkdir /w/d ", "remove /w/d "}) {
		t.Errorf("%q", done)
	}
}

func TestAWholeFileIsWhatItHolds(t *testing.T) {
	pretend(t)
	text, err := ReadFile("/w/zoë.md")
	part, partErr := ReadRange("/w/zoë.md", 2, 4)
	if err != nil || partErr != nil || !bytes.Equal(text, []byte("# Zoë\n")) || string(part) != "Zoë" {
		t.Errorf("%q, %q, %v, %v", text, part, err, partErr)
	}
	about, err := Stat("/w/zoë.md")
	if err != nil || about.Name() != "zoë.md" || about.Size() != 7 || about.ModTime().UnixMilli() != 1_778_700_600_020 {
		t.Errorf("%v, %v", about, err)
	}
}
