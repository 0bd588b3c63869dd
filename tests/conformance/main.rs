//! ARCP 1.1 through the public wire, one file a section.

mod requirements;
mod s04_transport;
mod s05_envelope;
mod s06_2_hello;
mod s06_3_resume;
mod s06_4_heartbeat;
mod s06_5_ack;
mod s06_6_list_jobs;
mod s06_7_close;
mod s07_1_submit;
mod s07_2_idempotency;
mod s07_3_lifecycle;
mod s07_4_cancel;
mod s07_5_versions;
mod s07_6_subscribe;
mod s08_2_events;
mod s08_4_result_chunk;
mod s09_2_patterns;
mod s09_3_services;
mod s09_5_expiration;
mod s09_6_budget;
mod s09_8_credentials;
mod s10_delegation;
mod s14_audit;
mod s14_bounds;
mod suite;
