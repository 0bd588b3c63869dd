//! The Java SDK: what it sends, and what it waits for. It knows no `session.error`.

use serde_json::json;

use crate::replay::{Sdk, cancel, lease, nothing, plain, replays, subscribe_twice, ulid};

const SDK: Sdk = Sdk {
    name: "java",
    id: ulid,
    hello_envelope: nothing,
    envelope: plain,
    hello: |token| {
        json!({
            "client": { "name": "arcp-client-java", "version": "1.0.0" },
            "auth": { "scheme": "bearer", "token": token },
            "capabilities": {
                "encodings": ["json"],
                "features": ["ack", "agent_versions", "cost.budget", "heartbeat", "lease_expires_at", "list_jobs",
                    "progress", "result_chunk", "subscribe"],
            },
        })
    },
    submit: nothing,
    lease,
    cancel,
    subscribe: subscribe_twice,
    list: nothing,
    close: "session.close",
    cancelled: "job.error",
    reads: r"
        *                /arcp                                  text
        *                /id                                    text
        *                /type                                  text
        *                /payload                               object
        session.welcome  /session_id                            text
        session.welcome  /payload/runtime/name                  text
        session.welcome  /payload/runtime/version               text
        session.welcome  /payload/resume_token                  text
        session.welcome  /payload/resume_window_sec             int32
        session.welcome  /payload/heartbeat_interval_sec        ?int32
        session.welcome  /payload/capabilities/features         texts
        session.welcome  /payload/capabilities/agents/*/name    text
        refused.session  /type                                  =job.error
        refused.session  /job_id                                absent
        refused.session  /payload/code                          =UNAUTHENTICATED
        job.accepted     /payload/job_id                        the-job
        job.accepted     /payload/lease                         lease
        job.accepted     /payload/budget                        ?numbers
        job.accepted     /payload/accepted_at                   moment
        refused.submit   /type                                  =job.error
        refused.submit   /id                                    the-request
        refused.submit   /job_id                                absent
        refused.submit   /payload/code                          =AGENT_NOT_AVAILABLE
        refused.submit   /payload/message                       text
        refused.submit   /payload/retryable                     flag
        job.event        /job_id                                the-job
        job.event        /payload/kind                          text
        job.event        /payload/ts                            moment
        job.event        /payload/body                          object
        event.progress   /payload/body/current                  whole
        event.metric     /payload/body/dimensions               ?map
        event.artifact_ref  /payload/body/uri                   text
        job.result       /job_id                                the-job
        job.result       /payload/result                        any
        job.cancelled    /job_id                                the-job
        job.error        /job_id                                the-job
        job.error        /payload/code                          code
        session.jobs     /payload/request_id                    the-request
        session.jobs     /payload/jobs/*/created_at             moment
        refused.list     /type                                  =job.error
        refused.list     /id                                    the-request
        refused.list     /job_id                                absent
        refused.list     /payload/code                          =INVALID_REQUEST
        job.subscribed   /payload/subscribed_from               whole
        job.subscribed   /payload/replayed                      flag
        refused.subscribe  /type                                =job.error
        refused.subscribe  /job_id                              the-job
        refused.subscribe  /payload/code                        =JOB_NOT_FOUND
        watched.job.result  /job_id                             the-job
        watched.job.result  /payload/result                     any
        session.closed   /payload                               object
    ",
};

replays!(SDK);
