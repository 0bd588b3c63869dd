// Package runtime is what the generated bindings stand on: memory that the
// host may write to, and handles of what the host holds.
//
// Go's collector does not move what lies on the heap, so an address stays good
// for as long as something refers to the object. All that has to be seen to is
// that something does: for what goes to the host, a [runtime.Pinner] of the
// call; for what comes from it, [kept] until [Release].
package runtime

import (
	"runtime"
	"unsafe"
)

// Allocate gives zeroed memory that lives until the pinner lets go of it.
//
// It is memory without pointers to the collector: what the host puts there are
// 32-bit addresses, which it would not recognise.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	memory := unsafe.Pointer(unsafe.SliceData(words(size)))
	pinner.Pin(memory)
	return memory
}

// words gives memory of a size, aligned to 8 bytes, which is as much as the
// canonical ABI asks for.
func words(size uintptr) []uint64 {
	return make([]uint64, (size+7)/8)
}

// kept holds what the host allocated for results it is about to give, and what
// it gave since the last Release.
var kept [][]uint64

// Release lets go of what the host allocated. What the agent refers to lives
// on, as anything does in Go.
//
// It is called after a call's result was read, when every address in it has
// become a pointer, and not by anyone in the middle of a call.
func Release() {
	clear(kept)
	kept = kept[:0]
}

// Unpin is called by the generated code between reading the arguments of an
// export and running it.
func Unpin() { Release() }

// Handle is the agent's end of something the host holds. 0 is none: the host
// counts from 1.
type Handle struct {
	value int32
}

// MakeHandle makes a handle of what the host gave.
func MakeHandle(value int32) *Handle { return &Handle{value} }

// Use gives the handle for a call that borrows it.
func (h *Handle) Use() int32 {
	if h.value == 0 {
		panic("wit: the handle was given away")
	}
	return h.value
}

// Take gives the handle away.
func (h *Handle) Take() int32 {
	value := h.Use()
	h.value = 0
	return value
}

// TakeOrNil gives the handle away if it was not before, and 0 otherwise.
func (h *Handle) TakeOrNil() int32 {
	value := h.value
	h.value = 0
	return value
}

// Set fills a handle that was given away.
func (h *Handle) Set(value int32) {
	if h.value != 0 {
		panic("wit: the handle is in use")
	}
	h.value = value
}
