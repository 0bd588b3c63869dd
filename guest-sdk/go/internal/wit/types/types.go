// Package types holds the shapes of the component model that Go has no types
// for, as far as the generated bindings name them.
package types

// Unit is the value of a result that has none.
type Unit = struct{}

// Tuple2 is a pair.
type Tuple2[T0, T1 any] struct {
	F0 T0
	F1 T1
}

// What [Option.Tag] says.
const (
	OptionNone uint8 = iota
	OptionSome
)

// Option is a value that may be missing. The zero Option is one that is.
type Option[T any] struct {
	present bool
	value   T
}

// Some makes an option of a value.
func Some[T any](value T) Option[T] { return Option[T]{present: true, value: value} }

// None makes an option without a value.
func None[T any]() Option[T] { return Option[T]{} }

// Tag says which of the two it is.
func (o Option[T]) Tag() uint8 {
	if o.present {
		return OptionSome
	}
	return OptionNone
}

// Some gives the value. It panics if there is none.
func (o Option[T]) Some() T {
	if !o.present {
		panic("wit: the option is none")
	}
	return o.value
}

// Get gives the value and whether there is one.
func (o Option[T]) Get() (T, bool) { return o.value, o.present }

// What [Result.Tag] says.
const (
	ResultOk uint8 = iota
	ResultErr
)

// Result is a value or why there is none. Both are held as they are and not
// behind an interface, so that making one allocates nothing.
type Result[T, E any] struct {
	failed bool
	ok     T
	err    E
}

// Ok makes a result of a value.
func Ok[T, E any](value T) Result[T, E] { return Result[T, E]{ok: value} }

// Err makes a result of a failure.
func Err[T, E any](failure E) Result[T, E] { return Result[T, E]{failed: true, err: failure} }

// Tag says which of the two it is.
func (r Result[T, E]) Tag() uint8 {
	if r.failed {
		return ResultErr
	}
	return ResultOk
}

// Ok gives the value. It panics if there is none.
func (r Result[T, E]) Ok() T {
	if r.failed {
		panic("wit: the result is an error")
	}
	return r.ok
}

// Err gives the failure. It panics if there is none.
func (r Result[T, E]) Err() E {
	if !r.failed {
		panic("wit: the result is no error")
	}
	return r.err
}
