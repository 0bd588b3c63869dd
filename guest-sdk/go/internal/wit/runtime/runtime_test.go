package runtime

import (
	"runtime"
	"testing"
	"unsafe"
)

func TestMemoryForTheHostIsZeroedAndAligned(t *testing.T) {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	for _, size := range []uintptr{1, 4, 7, 8, 16, 24, 32, 100_001} {
		memory := Allocate(&pinner, size, 8)
		if uintptr(memory)%8 != 0 {
			t.Errorf("%d bytes are at %p", size, memory)
		}
		for i, b := range unsafe.Slice((*byte)(memory), size) {
			if b != 0 {
				t.Fatalf("byte %d of %d is %d", i, size, b)
			}
		}
	}
	if Allocate(&pinner, 0, 4) != nil {
		t.Error("nothing has an address")
	}
}

func TestReleaseForgetsAndKeepsItsRoom(t *testing.T) {
	kept = append(kept, words(8), words(16))
	Release()
	if len(kept) != 0 || cap(kept) < 2 {
		t.Errorf("%d of %d", len(kept), cap(kept))
	}
	if whole := kept[:2]; whole[0] != nil || whole[1] != nil {
		t.Error("what was released is still referred to")
	}
}

func TestAHandleIsGivenAwayOnce(t *testing.T) {
	handle := MakeHandle(7)
	if handle.Use() != 7 || handle.Take() != 7 || handle.TakeOrNil() != 0 {
		t.Error("it is not what it was")
	}
	// In this order: what is set is there.
	for _, step := range []struct {
		name string
		use  func()
	}{
		{"use", func() { handle.Use() }},
		{"take", func() { handle.Take() }},
		{"set", func() { handle.Set(1); handle.Set(2) }},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of what is not there", step.name)
				}
			}()
			step.use()
		}()
	}
}
