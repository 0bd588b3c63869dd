use leasehold_tests::TestHost;
#[tokio::test]
async fn smoke() {
    let host = TestHost::new().await;
    let mut session = host.session().await;
    let run = session.submit("echo").input(serde_json::json!({"a":1})).run().await;
    println!("{run:#?}");
    let host = TestHost::builder().sqlite().start().await;
    let mut client = host.client().await;
    println!("{:?}", client.submit(leasehold::client::Submit::new("echo", serde_json::json!(1))).await);
    println!("{:?}", client.next_event().await);
    host.stop().await;
}
