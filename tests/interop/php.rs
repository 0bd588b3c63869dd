//! The PHP SDK of the 1.1 draft: what it sends, and what it resolves by `correlation_id`.

use serde_json::json;

use crate::replay::{Sdk, cancel_twice, lease, prefixed, replays, subscribe_twice};

const SENT_AT: &str = "2026-05-13T19:30:00.000+00:00";

const SDK: Sdk = Sdk {
    name: "php",
    id: prefixed,
    hello_envelope: || json!({ "timestamp": SENT_AT }),
    envelope: |session_id| json!({ "timestamp": SENT_AT, "session_id": session_id }),
    hello: |token| {
        json!({
            "client": { "kind": "app", "version": "1.0.0" },
            "auth": { "scheme": "bearer", "token": token },
            "capabilities": { "streaming": true, "subscriptions": true, "durable_jobs": false },
        })
    },
    // An empty input is an empty array in its language.
    submit: || json!({ "input": [], "lease_constraints": [] }),
    lease,
    cancel: cancel_twice,
    subscribe: subscribe_twice,
    list: || json!({ "filter": [] }),
    close: "session.close",
    cancelled: "job.error",
    reads: r"
        *                /arcp                                  text
        *                /id                                    text
        *                /type                                  text
        *                /timestamp                             moment
        *                /payload                               object
        session.welcome  /payload/session_id                    text
        session.welcome  /payload/runtime/kind                  text
        session.welcome  /payload/runtime/version               text
        session.welcome  /payload/capabilities                  object
        refused.session  /type                                  =session.unauthenticated
        refused.session  /correlation_id                        the-request
        refused.session  /payload/code                          =UNAUTHENTICATED
        refused.session  /payload/message                       text
        job.accepted     /correlation_id                        absent
        refused.submit   /type                                  =nack
        refused.submit   /correlation_id                        the-request
        refused.submit   /payload/error/code                    =AGENT_NOT_AVAILABLE
        refused.submit   /payload/error/message                 text
        refused.submit   /payload/error/retryable               flag
        subscribe.event  /job_id                                the-job
        subscribe.event  /payload/event/type                    =job.event
        subscribe.event  /payload/event/id                      text
        subscribe.event  /payload/event/job_id                  the-job
        subscribe.event  /payload/event/timestamp               moment
        subscribe.event  /payload/event/payload/kind            text
        subscribe.event  /payload/event/payload/ts              moment
        subscribe.event  /payload/event/payload/body            object
        job.result       /correlation_id                        the-request
        job.result       /payload/final_status                  =success
        job.result       /payload/result                        any
        job.result       /payload/result_id                     absent
        job.cancelled    /job_id                                the-job
        job.error        /correlation_id                        the-request
        job.error        /payload/final_status                  =error|cancelled|timed_out
        job.error        /payload/code                          code
        job.error        /payload/message                       text
        job.error        /payload/retryable                     flag
        session.jobs     /correlation_id                        the-request
        session.jobs     /payload/jobs                          list
        refused.list     /type                                  =nack
        refused.list     /correlation_id                        the-request
        refused.list     /payload/error/code                    =INVALID_REQUEST
        job.subscribed   /correlation_id                        the-request
        job.subscribed   /payload/job_id                        the-job
        job.subscribed   /payload/current_status                text
        job.subscribed   /payload/agent                         text
        refused.subscribe  /type                                =nack
        refused.subscribe  /correlation_id                      the-request
        refused.subscribe  /payload/error/code                  =JOB_NOT_FOUND
        watched.job.result  /job_id                             the-job
        watched.job.result  /correlation_id                     absent
        watched.job.result  /payload/final_status               =success
        session.closed   /payload                               object
    ",
};

replays!(SDK);
