//! `leasehold credentials`: which keys of jobs are out, seen beside the host that made them (ARCP §14).

use std::{fs, path::Path};

use leasehold::client::{CREDENTIALS, Client, ClientInfo, Submit};
use leasehold_tests::{
    host::{ALICE, token},
    program::{Outcome, Serve, run},
    within,
};
use serde_json::{Value, json};

use crate::code;

/// Makes keys, and unmakes none while a file says so.
const MAKER: &str = r#"
asked=$(cat)
case "$asked" in
*'"issue"'*) echo '{"value": "sk-nobody-sees-this", "endpoint": "https://models.example.com/v1"}' ;;
*) if [ -e "$0.broken" ]; then exit 3; fi; echo '{}' ;;
esac
"#;

async fn credentials(data: &Path, more: &[&str]) -> Outcome {
    let data = data.display().to_string();
    let said = run([&["credentials", "--data", &data], more].concat()).await.exits(code::SUCCESS);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("sk-nobody"), "{}", said.stdout);
    said
}

/// Asks until it is so: the host revokes in its own time.
async fn until(data: &Path, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let asked = async {
        loop {
            let rows = credentials(data, &["--json"]).await.objects();
            if is_so(&rows) {
                return rows;
            }
        }
    };
    within("the list to change", asked).await
}

#[tokio::test]
async fn keys_that_are_out_are_listed_until_they_are_worth_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (maker, settings, data) =
        (dir.path().join("maker"), dir.path().join("leasehold.toml"), dir.path().join("data"));
    fs::write(&maker, MAKER).unwrap();
    fs::write(dir.path().join("maker.broken"), "").unwrap();
    let text = format!(
        "[policy.alice.lease]\n\"model.use\" = [\"**\"]\n[upstreams.main]\nurl = \"http://127.0.0.1:9/v1\"\n\
         [models.small]\nupstream = \"main\"\n\
         [credentials.mine]\nrevoke_retry_sec_max = 1\ncommand.command = [\"sh\", \"{}\"]\n",
        maker.display()
    );
    fs::write(&settings, text).unwrap();
    let host = Serve::on(&data).await.args(["--config", &settings.display().to_string()]).start().await;
    assert!(credentials(&data, &[]).await.stdout.is_empty());

    let mut info = ClientInfo::default();
    info.features.push(CREDENTIALS.to_owned());
    let token = token(ALICE);
    let client = Client::connect_ws(&host.url, Some(&token), info);
    let mut client = within("a session", client).await.unwrap();
    let lease_request = Some(json!({ "model.use": ["small"] }));
    let submission = Submit { lease_request, ..Submit::new("sleeper", json!({ "sec": 1000 })) };
    let job = within("the acceptance", client.submit(submission)).await.unwrap().job_id;
    let rows = until(&data, |rows| !rows.is_empty()).await;
    assert_eq!((rows.len(), &rows[0]["job_id"], &rows[0]["provisioner"]), (1, &json!(job), &json!("mine")), "{rows:?}");
    assert!(rows[0]["failed_at"].is_null(), "{rows:?}");
    assert!(credentials(&data, &[]).await.stdout.contains("outstanding"));

    // Its job is over, and its maker does not answer.
    within("the cancellation", client.cancel(&job, None)).await.unwrap();
    let rows = until(&data, |rows| rows.iter().any(|row| !row["failed_at"].is_null())).await;
    assert!(rows[0]["why"].as_str().is_some_and(|why| why.contains("exit status: 3")), "{rows:?}");
    assert!(credentials(&data, &[]).await.stdout.contains("cannot be revoked since"));

    fs::remove_file(dir.path().join("maker.broken")).unwrap();
    until(&data, <[Value]>::is_empty).await;
    let _ = host.terminate().await.exits(code::SUCCESS);
    assert!(credentials(&data, &[]).await.stdout.is_empty());
}
