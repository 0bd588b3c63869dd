// With an assembly file in the package, the compiler takes functions that have no body.
