//! What cannot be done with a permit, because it does not compile.
//!
//! Each file of `misuse/` is one attempt, its name says which, and beside it stands what the compiler answers, so that
//! none fails for a reason other than its own. `TRYBUILD=overwrite` writes the answers anew after a change of the
//! toolchain; look at each.

/// How many ways there must be at least.
const ATTEMPTS_MIN: usize = 20;

#[test]
fn no_misuse_of_a_permit_compiles() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/misuse");
    let files = std::fs::read_dir(here).expect("the folder is there");
    let attempts = files.filter(|file| {
        let path = file.as_ref().expect("a file").path();
        path.extension().is_some_and(|extension| extension == "rs")
    });
    let attempts = attempts.count();
    println!("{attempts} ways to misuse a permit");
    assert!(attempts >= ATTEMPTS_MIN, "only {attempts}");
    trybuild::TestCases::new().compile_fail("tests/misuse/*.rs");
}
