//! What a program on a machine has around it and an agent has not.

use leasehold_tests::{ErrorCode, MountMode, TestHost};
use serde_json::{Value, json};

use super::House;

/// The widest lease there is changes nothing: authority comes through the contract or not at all.
#[tokio::test]
async fn nothing_is_reachable_but_the_contract() {
    let lease = json!({"fs.read": ["/w/**"], "fs.write": ["/w/**"]});
    let mut house = House::start(TestHost::builder().mount("/w", MountMode::Rw)).await;
    for lease in [json!({}), lease] {
        let run = house.leased(lease, json!({"do": "ambient"})).await;
        let outcome = run.result().unwrap_or_else(|_| panic!("{run:?}"));
        let report = &outcome["ok"];
        assert_eq!((&report["args"], &report["env"]), (&json!([]), &json!([])), "{report}");
        assert_eq!(report["stdin"], json!({"ok": 0}), "it is empty");
        // Every function that `std` has for what is outside: with no folder, no address and no program behind it.
        let report_of_all = report.as_object().expect("one answer each");
        let harmless = ["args", "env", "stdin", "cwd"];
        let tried: Vec<_> = report_of_all.iter().filter(|(what, _)| !harmless.contains(&what.as_str())).collect();
        assert!(tried.len() >= 30, "only {} were tried", tried.len());
        for (what, answer) in tried {
            let refused = answer["err"].as_str().is_some_and(|error| !error.is_empty());
            assert!(refused, "{what}: {answer}");
        }
        // Some directory is always current; it says nothing of the host's.
        assert!(matches!(report["cwd"]["ok"].as_str(), None | Some("/")), "{report}");
    }
    assert!(!std::path::Path::new("/tmp/escaped").exists());
}

/// A run draws its own numbers: two agents do not share a source they could speak through.
#[tokio::test]
async fn randomness_differs_between_jobs() {
    let mut house = House::start(TestHost::builder()).await;
    let mut drawn = Vec::new();
    for _ in 0..2 {
        drawn.push(house.deed(json!({"do": "random"})).await.result().expect("a number is drawn"));
    }
    assert_ne!(drawn[0], drawn[1]);
}

/// What a job may know of itself is about itself.
#[tokio::test]
async fn a_job_knows_itself_and_nobody_else() {
    let mut house = House::start(TestHost::builder().mount("/w", MountMode::Ro)).await;
    let run = house
        .leased(json!({"fs.read": ["/w/a"]}), json!({"do": "job", "namespaces": ["fs.read", "fs.write", "evil"]}))
        .await;
    let outcome = run.result().expect("it may ask");
    assert_eq!(outcome["ok"]["id"], run.terminal["job_id"]);
    assert_eq!(outcome["ok"]["agent"], "hostile@1.0.0");
    assert_eq!(outcome["ok"]["trace_id"], run.terminal["trace_id"]);
    assert_eq!(outcome["ok"]["grants"], json!({"fs.read": ["/w/a"], "fs.write": [], "evil": []}));
    assert_eq!(outcome["ok"]["expires_at"], Value::Null);
}

/// The WASI that runtimes insist on, function by function and without a standard library that could have refused first.
#[tokio::test]
async fn no_function_of_wasi_opens_connects_listens_resolves_or_reads() {
    let mut house = House::start(TestHost::builder()).await;
    let run = house.deed(json!({"do": "raw"})).await;
    let outcome = run.result().unwrap_or_else(|_| panic!("{run:?}"));
    let mut report = outcome["ok"].as_object().expect("one answer each").clone();
    let own = report.remove("own").expect("what is its own works");
    assert_eq!(own["output.write"], json!({"ok": null}), "{own}");
    let empty = [json!([]), json!(0), json!(null), json!(false)];
    for (function, answer) in &report {
        let refused = answer["err"].as_str().is_some_and(|error| {
            // A stream that has ended, and what who asks for a socket or a name is answered.
            ["Closed", "access-denied", "permanent-resolver-failure", "invalid-argument"]
                .iter()
                .any(|it| error.contains(it))
        });
        let nothing = empty.contains(answer) || answer["ok"] == json!(0);
        assert!(refused || nothing, "{function}: {answer}");
    }
    for (what, function) in [("a socket", "create-"), ("a name", "resolve-")] {
        let mut asked = report.iter().filter(|(name, _)| name.starts_with(function)).peekable();
        assert!(asked.peek().is_some() && asked.all(|(_, answer)| answer.get("err").is_some()), "{what}: {report:?}");
    }

    // What is left is called on a descriptor, a socket or a stream, and nobody is given one.
    let run = house.deed(json!({"do": "raw_names"})).await;
    let names = run.result().expect("it knows them")["ok"].as_array().expect("a list").clone();
    for name in &names {
        let run = house.deed(json!({"do": "raw_forged", "function": name})).await;
        assert_eq!(run.result(), Err(ErrorCode::InternalError), "{name}: {run:?}");
        assert!(run.message().contains("handle"), "{name}: {}", run.message());
    }
    println!("{} functions of WASI that give nothing, {} that nobody can call", report.len(), names.len());
    assert!(names.len() >= 80, "{} functions", names.len());
    assert!(!std::path::Path::new("/tmp/escaped").exists());
}
