//! A pattern that covers another matches what that matches (ARCP §9.2, §9.4).
#![no_main]

use leasehold_core::lease::{
    Namespace,
    pattern::Pattern,
    target::{FetchUrl, FilePath, Target, ToolName},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Two patterns and a target, one a line.
    let mut lines = text.lines();
    let (Some(wide), Some(narrow), Some(target)) = (lines.next(), lines.next(), lines.next()) else { return };
    for namespace in [Namespace::FsRead, Namespace::NetFetch, Namespace::ToolCall] {
        let parse = |text: &str| Pattern::parse(&namespace, text).ok();
        let Some(wide) = parse(wide) else { continue };
        assert!(wide.covers(&wide), "{wide} does not cover itself");
        assert_eq!(parse(wide.as_str()).as_ref().map(Pattern::as_str), Some(wide.as_str()));
        let Some(narrow) = parse(narrow).filter(|narrow| wide.covers(narrow)) else { continue };
        let law = |target: Target<'_>| {
            assert!(!narrow.matches(target) || wide.matches(target), "{wide} covers {narrow} and is narrower");
        };
        match namespace {
            Namespace::FsRead => drop(FilePath::parse(target).map(|path| law(Target::File(&path)))),
            Namespace::NetFetch => drop(FetchUrl::parse(target).map(|url| law(Target::Url(&url)))),
            _ => drop(ToolName::parse(target).map(|tool| law(Target::Tool(&tool)))),
        }
    }
});
