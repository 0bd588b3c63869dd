// Package fs is the files a lease grants: `fs.read` and `fs.write`.
//
// A path is absolute, as in "/workspace/notes.md", and names a place in the
// job's own tree, under one of the host's mounts. The lease is asked each time,
// so any call can fail with [agent.PermissionDenied], [agent.LeaseExpired] or
// [agent.BudgetExhausted]. errors.Is knows [fs.ErrNotExist], [fs.ErrExist] and
// [fs.ErrPermission] in what these functions return.
//
// [DirFS] is the same as an [fs.FS], for [fs.WalkDir], [fs.Glob], templates and
// the like.
package fs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"leasehold.dev/agent"
	"leasehold.dev/agent/internal/host"
)

// buffer is how much a [File] asks for at once.
const buffer = 256 * 1024

// ReadFile reads a whole file. A file over the host's read limit (default
// 16 MiB) is [agent.TooLarge]; [Open] reads it in parts.
func ReadFile(path string) ([]byte, error) { return host.Read(path) }

// ReadRange reads at most length bytes from an offset. It gives less than length
// only at the end of the file, or if length is over the host's read limit
// (default 16 MiB), and nothing beyond the end.
func ReadRange(path string, offset, length uint64) ([]byte, error) {
	return host.ReadRange(path, offset, length)
}

// ReadDir lists a directory in the order of its names. Entries whose names are
// not UTF-8 are left out. A directory with more entries than the host's limit
// (default 65,536) is [agent.TooLarge].
//
// The Info of an entry asks the host, as [Stat] does.
func ReadDir(path string) ([]fs.DirEntry, error) {
	found, err := host.List(path)
	if err != nil {
		return nil, err
	}
	entries := make([]fs.DirEntry, len(found))
	for i, entry := range found {
		entries[i] = dirEntry{dir: path, entry: entry}
	}
	return entries, nil
}

// Stat describes a file or directory without opening it.
func Stat(name string) (fs.FileInfo, error) {
	metadata, err := host.Stat(name)
	if err != nil {
		return nil, err
	}
	return info{name: path.Base(name), metadata: metadata}, nil
}

// WriteFile replaces a file's contents at once, or creates the file: a reader
// sees the old contents or the new. The directory must exist. At most the host's
// write limit (default 16 MiB).
func WriteFile(path string, contents []byte) error { return host.Write(path, contents) }

// Append adds to the end of a file, or creates it.
func Append(path string, contents []byte) error { return host.Append(path, contents) }

// Mkdir creates a directory, whose parent must exist.
func Mkdir(path string) error { return host.CreateDir(path) }

// Remove removes a file or an empty directory.
func Remove(path string) error { return host.Remove(path) }

// Open opens a file of any size to read it in parts. A directory is
// [agent.NotAFile].
//
//	file, err := fs.Open("/workspace/server.log")
//	if err != nil {
//		return err
//	}
//	lines := bufio.NewScanner(file)
func Open(name string) (*File, error) {
	metadata, err := host.Stat(name)
	if err != nil {
		return nil, err
	}
	if metadata.Kind != host.KindFile {
		return nil, agent.Errorf(agent.NotAFile, "%s is not a file", name)
	}
	return &File{path: name, info: info{name: path.Base(name), metadata: metadata}}, nil
}

// File is a file that is read in parts, through a buffer: an [fs.File], an
// [io.Seeker] and an [io.ReaderAt].
//
// The host keeps nothing open: each part is asked for by path, and the lease is
// asked each time. A file that changes meanwhile is read as it changes.
type File struct {
	path string
	info info
	// at is where Read goes on, and held the bytes from there on.
	at     int64
	held   []byte
	closed bool
}

// Stat gives what was known of the file when it was opened.
func (f *File) Stat() (fs.FileInfo, error) {
	if f.closed {
		return nil, f.wrap("stat", fs.ErrClosed)
	}
	return f.info, nil
}

// Read reads the next bytes.
func (f *File) Read(into []byte) (int, error) {
	if f.closed {
		return 0, f.wrap("read", fs.ErrClosed)
	}
	if len(into) == 0 {
		return 0, nil
	}
	if len(f.held) == 0 {
		part, err := host.ReadRange(f.path, uint64(f.at), buffer)
		if err != nil {
			return 0, f.wrap("read", err)
		}
		if len(part) == 0 {
			return 0, io.EOF
		}
		f.held = part
	}
	read := copy(into, f.held)
	f.held = f.held[read:]
	f.at += int64(read)
	return read, nil
}

// ReadAt reads from an offset, past the buffer.
func (f *File) ReadAt(into []byte, offset int64) (int, error) {
	if f.closed {
		return 0, f.wrap("read", fs.ErrClosed)
	}
	if offset < 0 {
		return 0, f.wrap("read", agent.Errorf(agent.InvalidRequest, "the offset is negative"))
	}
	read := 0
	for read < len(into) {
		part, err := host.ReadRange(f.path, uint64(offset)+uint64(read), uint64(len(into)-read))
		if err != nil {
			return read, f.wrap("read", err)
		}
		if len(part) == 0 {
			return read, io.EOF
		}
		read += copy(into[read:], part)
	}
	return read, nil
}

// Seek moves to where Read goes on, also beyond the end; the end is where it was
// when the file was opened.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	if f.closed {
		return 0, f.wrap("seek", fs.ErrClosed)
	}
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.info.Size()
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, f.wrap("seek", agent.Errorf(agent.InvalidRequest, "no place in a file"))
	}
	f.at, f.held = offset, nil
	return offset, nil
}

// Close ends the use of the file. A second time is [fs.ErrClosed].
func (f *File) Close() error {
	if f.closed {
		return f.wrap("close", fs.ErrClosed)
	}
	f.closed, f.held = true, nil
	return nil
}

func (f *File) wrap(op string, err error) error { return &fs.PathError{Op: op, Path: f.path, Err: err} }

// info is a FileInfo.
type info struct {
	name     string
	metadata host.Metadata
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(i.metadata.Size) }
func (i info) Mode() fs.FileMode  { return mode(i.metadata.Kind) }
func (i info) IsDir() bool        { return i.metadata.Kind == host.KindDirectory }
func (i info) Sys() any           { return nil }
func (i info) String() string     { return fs.FormatFileInfo(i) }
func (i info) ModTime() time.Time { return modified(i.metadata.Modified) }

// modified reads what the host always writes in one form.
func modified(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return at
}

// mode says the kind; what an agent may do with it, the lease says.
func mode(kind uint8) fs.FileMode {
	switch kind {
	case host.KindFile:
		return 0o444
	case host.KindDirectory:
		return fs.ModeDir | 0o555
	default:
		return fs.ModeIrregular
	}
}

// dirEntry is a DirEntry.
type dirEntry struct {
	dir   string
	entry host.Entry
}

func (e dirEntry) Name() string      { return e.entry.Name }
func (e dirEntry) IsDir() bool       { return e.entry.Kind == host.KindDirectory }
func (e dirEntry) Type() fs.FileMode { return mode(e.entry.Kind).Type() }
func (e dirEntry) String() string    { return fs.FormatDirEntry(e) }
func (e dirEntry) Info() (fs.FileInfo, error) {
	return Stat(strings.TrimSuffix(e.dir, "/") + "/" + e.entry.Name)
}

// DirFS gives what lies below a directory, as an [fs.FS] that also is an
// [fs.ReadFileFS], [fs.ReadDirFS], [fs.StatFS] and [fs.SubFS]. The host is not
// asked until something is done with it.
//
//	err := fs.WalkDir(agentfs.DirFS("/workspace"), ".", …)
//
// Its errors are [fs.PathError]s around those of the host.
func DirFS(dir string) fs.FS { return dirFS(dir) }

type dirFS string

// full gives the path of a name, if it is one that io/fs allows.
func (d dirFS) full(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return string(d), nil
	}
	return strings.TrimSuffix(string(d), "/") + "/" + name, nil
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var wrapped *fs.PathError
	if errors.As(err, &wrapped) {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open opens a file or a directory.
func (d dirFS) Open(name string) (fs.File, error) {
	full, err := d.full("open", name)
	if err != nil {
		return nil, err
	}
	metadata, err := host.Stat(full)
	if err != nil {
		return nil, wrap("open", name, err)
	}
	about := info{name: path.Base(name), metadata: metadata}
	if about.IsDir() {
		return &openDir{path: full, name: name, info: about}, nil
	}
	if metadata.Kind != host.KindFile {
		return nil, wrap("open", name, agent.Errorf(agent.NotAFile, "%s is not a file", full))
	}
	return &File{path: full, info: about}, nil
}

// ReadFile reads a whole file.
func (d dirFS) ReadFile(name string) ([]byte, error) {
	full, err := d.full("read", name)
	if err != nil {
		return nil, err
	}
	text, err := ReadFile(full)
	return text, wrap("read", name, err)
}

// ReadDir lists a directory.
func (d dirFS) ReadDir(name string) ([]fs.DirEntry, error) {
	full, err := d.full("readdir", name)
	if err != nil {
		return nil, err
	}
	entries, err := ReadDir(full)
	return entries, wrap("readdir", name, err)
}

// Stat describes a file or directory.
func (d dirFS) Stat(name string) (fs.FileInfo, error) {
	full, err := d.full("stat", name)
	if err != nil {
		return nil, err
	}
	metadata, err := host.Stat(full)
	if err != nil {
		return nil, wrap("stat", name, err)
	}
	return info{name: path.Base(name), metadata: metadata}, nil
}

// Sub gives what lies below a directory of it.
func (d dirFS) Sub(dir string) (fs.FS, error) {
	full, err := d.full("sub", dir)
	if err != nil {
		return nil, err
	}
	return dirFS(full), nil
}

// openDir is a directory that was opened. It is listed when it is read.
type openDir struct {
	path, name string
	info       info
	listed     bool
	left       []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, wrap("read", d.name, agent.Errorf(agent.NotAFile, "%s is a directory", d.path))
}

// ReadDir gives the next entries, as [fs.ReadDirFile] says.
func (d *openDir) ReadDir(most int) ([]fs.DirEntry, error) {
	if !d.listed {
		entries, err := ReadDir(d.path)
		if err != nil {
			return nil, wrap("readdir", d.name, err)
		}
		d.listed, d.left = true, entries
	}
	if most > 0 && len(d.left) == 0 {
		return nil, io.EOF
	}
	if most <= 0 || most > len(d.left) {
		most = len(d.left)
	}
	entries := d.left[:most]
	d.left = d.left[most:]
	return entries, nil
}
