package runtime

import (
	"unsafe"
)

// early is what the WASI adapter gets for its own state and stack. It asks at
// Go's first call of WASI, which is before there is a heap to allocate from,
// and it keeps what it got.
var early [earlySize / 8]uint64

const earlySize = 256 * 1024

var (
	earlyUsed uintptr
	// started says that Go's runtime is up, which it is when it initializes
	// packages.
	started bool
)

func init() { started = true }

// While the host allocates, the agent may call nothing, and a call that it
// makes all the same ends it. Two things in an innocent allocation would: the
// collector, which yields to other goroutines of the agent, and the clock,
// which Go reads when it gives memory back. A pinned goroutine does not begin
// or assist a collection, and the adapter's clock can be stopped.

//go:linkname pin runtime.procPin
func pin() int

//go:linkname unpin runtime.procUnpin
func unpin()

//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func pauseClock(paused uint32)

// reallocate gives the host memory for a result. It is only ever asked for new
// memory: nothing the host gives is built up piece by piece, except a string
// whose encoding changes, and ours are UTF-8 on both sides.
//
//go:wasmexport cabi_realloc
func reallocate(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	if old != nil || oldSize != 0 {
		panic("wit: the host wants to move memory")
	}
	if size == 0 {
		return nil
	}
	if !started {
		return reallocateEarly(align, size)
	}
	pauseClock(1)
	pin()
	memory := words(size)
	kept = append(kept, memory)
	unpin()
	pauseClock(0)
	return unsafe.Pointer(unsafe.SliceData(memory))
}

//go:nosplit
func reallocateEarly(align, size uintptr) unsafe.Pointer {
	base := uintptr(unsafe.Pointer(&early))
	begin := (base+earlyUsed+align-1)&^(align-1) - base
	if begin+size > earlySize {
		return unsafe.Add(unsafe.Pointer(nil), -1) // out of bounds: the host ends the agent
	}
	earlyUsed = begin + size
	return unsafe.Add(unsafe.Pointer(&early), begin)
}
