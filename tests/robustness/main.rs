//! Texts and bytes that no client should send, and what becomes of them.

mod json;
mod websocket;
