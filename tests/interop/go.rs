//! The Go SDK: what it sends, and what its structs can decode.

use serde_json::json;

use crate::replay::{Sdk, cancel, lease, nothing, plain, replays, subscribe_twice, uuid};

const SDK: Sdk = Sdk {
    name: "go",
    id: uuid,
    hello_envelope: nothing,
    envelope: plain,
    hello: |token| {
        json!({
            "client": { "name": "app", "version": "1.0.0" },
            "auth": { "scheme": "bearer", "token": token },
            "capabilities": {
                "encodings": ["json"],
                "features": ["heartbeat", "ack", "list_jobs", "subscribe", "agent_versions", "lease_expires_at",
                    "cost.budget", "progress", "result_chunk"],
            },
        })
    },
    submit: nothing,
    lease,
    cancel,
    subscribe: subscribe_twice,
    list: || json!({ "filter": {} }),
    close: "session.close",
    cancelled: "job.error",
    reads: r"
        *                /id                                    text
        *                /type                                  text
        *                /session_id                            text
        *                /event_seq                             ?positive
        *                /payload                               object
        session.welcome  /payload/resume_token                  text
        session.welcome  /payload/resume_window_sec             int32
        session.welcome  /payload/heartbeat_interval_sec        ?int32
        session.welcome  /payload/capabilities/features         texts
        session.welcome  /payload/capabilities/agents/*/name    text
        session.welcome  /payload/capabilities/agents/*/versions  texts
        refused.session  /type                                  =session.error
        refused.session  /payload/code                          =UNAUTHENTICATED
        job.accepted     /payload/job_id                        the-job
        job.accepted     /payload/lease                         lease
        job.accepted     /payload/accepted_at                   moment
        job.accepted     /payload/budget                        ?numbers
        refused.submit   /type                                  =session.error
        refused.submit   /payload/request_id                    the-request
        refused.submit   /payload/code                          =AGENT_NOT_AVAILABLE
        refused.submit   /payload/message                       text
        refused.submit   /payload/retryable                     flag
        job.event        /job_id                                the-job
        job.event        /payload/kind                          text
        job.event        /payload/ts                            moment
        job.event        /payload/body                          object
        event.progress   /payload/body/current                  whole
        event.progress   /payload/body/total                    ?whole
        event.metric     /payload/body/value                    number
        event.metric     /payload/body/dimensions               ?map
        job.result       /job_id                                the-job
        job.result       /payload/output                        any
        job.cancelled    /job_id                                the-job
        job.error        /job_id                                the-job
        job.error        /payload/code                          code
        job.error        /payload/details                       ?object
        session.jobs     /payload/request_id                    the-request
        session.jobs     /payload/jobs/*/job_id                 text
        session.jobs     /payload/jobs/*/created_at             moment
        session.jobs     /payload/jobs/*/last_event_seq         whole
        refused.list     /type                                  =session.error
        refused.list     /payload/request_id                    the-request
        refused.list     /payload/code                          =INVALID_REQUEST
        job.subscribed   /payload/job_id                        the-job
        job.subscribed   /payload/subscribed_from               whole
        job.subscribed   /payload/replayed                      flag
        refused.subscribe  /type                                =session.error
        refused.subscribe  /payload/request_id                  the-request
        refused.subscribe  /payload/code                        =JOB_NOT_FOUND
        watched.job.result  /job_id                             the-job
        watched.job.result  /payload/output                     any
        session.closed   /payload                               object
    ",
};

replays!(SDK);
