//! The TypeScript SDK: what it sends, and what its schemas demand.

use serde_json::json;

use crate::replay::{Sdk, cancel, lease, nothing, plain, prefixed, replays, subscribe};

const SDK: Sdk = Sdk {
    name: "typescript",
    id: prefixed,
    hello_envelope: nothing,
    envelope: plain,
    hello: |token| {
        json!({
            "client": { "name": "app", "version": "1.0.0" },
            "auth": { "scheme": "bearer", "token": token },
            "capabilities": {
                "features": [
                    "heartbeat", "ack", "list_jobs", "subscribe", "lease_expires_at", "cost.budget", "progress",
                    "result_chunk", "agent_versions", "model.use", "provisioned_credentials"
                ],
                "encodings": ["json"],
            },
        })
    },
    submit: nothing,
    lease,
    cancel,
    subscribe,
    list: nothing,
    close: "session.bye",
    cancelled: "job.error",
    reads: r"
        *                /arcp                                  =1.1
        *                /id                                    text
        *                /session_id                            text
        *                /job_id                                ?text
        *                /trace_id                              ?trace
        *                /event_seq                             ?positive
        *                /payload                               object
        session.welcome  /payload/runtime/name                  text
        session.welcome  /payload/runtime/version               text
        session.welcome  /payload/resume_token                  text
        session.welcome  /payload/resume_window_sec             positive
        session.welcome  /payload/heartbeat_interval_sec        ?positive
        session.welcome  /payload/capabilities/agents/*/name    text
        session.welcome  /payload/capabilities/agents/*/versions  texts
        refused.session  /type                                  =session.error
        refused.session  /payload/code                          =UNAUTHENTICATED
        refused.session  /payload/message                       text
        refused.session  /payload/retryable                     flag
        job.accepted     /trace_id                              the-trace
        job.accepted     /payload/job_id                        the-job
        job.accepted     /payload/agent                         text
        job.accepted     /payload/lease                         lease
        job.accepted     /payload/accepted_at                   text
        job.accepted     /payload/budget                        ?numbers
        job.accepted     /payload/credentials                   absent
        refused.submit   /type                                  =job.error
        refused.submit   /job_id                                another-job
        refused.submit   /trace_id                              the-trace
        refused.submit   /event_seq                             absent
        refused.submit   /payload/final_status                  =error
        refused.submit   /payload/code                          =AGENT_NOT_AVAILABLE
        refused.submit   /payload/message                       text
        refused.submit   /payload/retryable                     flag
        job.event        /job_id                                the-job
        job.event        /event_seq                             positive
        job.event        /payload/kind                          text
        job.event        /payload/ts                            moment
        job.event        /payload/body                          object
        event.progress   /payload/body/current                  whole
        event.progress   /payload/body/total                    ?whole
        event.progress   /payload/body/units                    ?text
        job.result       /job_id                                the-job
        job.result       /payload/final_status                  =success
        job.result       /payload/result                        any
        job.result       /payload/result_id                     absent
        job.cancelled    /job_id                                the-job
        job.error        /job_id                                the-job
        job.error        /payload/final_status                  =error|cancelled|timed_out
        job.error        /payload/code                          code
        job.error        /payload/message                       text
        job.error        /payload/retryable                     flag
        job.error        /payload/details                       ?object
        session.jobs     /payload/request_id                    the-request
        session.jobs     /payload/jobs/*/job_id                 text
        session.jobs     /payload/jobs/*/agent                  text
        session.jobs     /payload/jobs/*/status                 text
        session.jobs     /payload/jobs/*/lease                  lease
        session.jobs     /payload/jobs/*/created_at             text
        session.jobs     /payload/jobs/*/last_event_seq         whole
        session.jobs     /payload/jobs/*/parent_job_id          ?text|null
        session.jobs     /payload/jobs/*/trace_id               ?text
        session.jobs     /payload/next_cursor                   text|null
        refused.list     /type                                  =session.error
        refused.list     /payload/code                          =INVALID_REQUEST
        refused.list     /payload/message                       text
        job.subscribed   /payload/job_id                        the-job
        job.subscribed   /payload/current_status                =pending|running|success|error|cancelled|timed_out
        job.subscribed   /payload/agent                         text
        job.subscribed   /payload/lease                         lease
        job.subscribed   /payload/subscribed_from               whole
        job.subscribed   /payload/replayed                      flag
        job.subscribed   /payload/parent_job_id                 ?text|null
        job.subscribed   /payload/trace_id                      ?text
        job.subscribed   /payload/credentials                   absent
        refused.subscribe  /type                                =session.error
        refused.subscribe  /payload/code                        =JOB_NOT_FOUND
        watched.job.result  /job_id                             the-job
        watched.job.result  /payload/result                     any
        session.closed   /payload                               object
    ",
};

replays!(SDK);
