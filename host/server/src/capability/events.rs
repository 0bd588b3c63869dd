//! The interface `events`: what an agent tells those who watch its job (ARCP §8.2).

use leasehold_core::protocol::{
    credential::ROTATED,
    event::{Event, Level},
    json::Json,
};

use super::{
    JobCtx,
    bindings::{events, types::Error},
    invalid,
};

/// Phases only the host enters (ARCP §6.5, §9.8.2).
const RESERVED_PHASES: [&str; 3] = ["back_pressure", ROTATED, "lease_expired"];

const NAME_BYTES_MAX: usize = 128;

/// The longest URI or content type.
const URI_BYTES_MAX: usize = 4096;

impl events::Host for JobCtx {
    async fn log(&mut self, level: events::Level, message: String) {
        let level = match level {
            events::Level::Debug => Level::Debug,
            events::Level::Info => Level::Info,
            events::Level::Warn => Level::Warn,
            events::Level::Error => Level::Error,
        };
        let event = Event::Log { level, message: self.cut(message) };
        // The contract has no error here: a job whose journal takes no more is ended by its runner.
        let _ = self.emit(event).await;
    }

    async fn thought(&mut self, text: String) {
        let event = Event::Thought { text: self.cut(text) };
        // As above.
        let _ = self.emit(event).await;
    }

    async fn status(&mut self, phase: String, message: Option<String>) -> Result<(), Error> {
        if phase.is_empty() || phase.len() > NAME_BYTES_MAX {
            return Err(invalid(format!("a phase has 1 to {NAME_BYTES_MAX} bytes")));
        }
        if RESERVED_PHASES.contains(&phase.as_str()) {
            return Err(invalid(format!("the phase `{phase}` is the host's own")));
        }
        let message = message.map(|message| self.cut(message));
        self.emit(Event::Status { phase, message }).await
    }

    async fn progress(
        &mut self,
        current: u64,
        total: Option<u64>,
        units: Option<String>,
        message: Option<String>,
    ) -> Result<(), Error> {
        if let Some(total) = total.filter(|total| current > *total) {
            return Err(invalid(format!("progress {current} is over its total {total}")));
        }
        // Some clients refuse an empty unit.
        let units = units.filter(|units| !units.is_empty()).map(|units| self.cut(units));
        let message = message.map(|message| self.cut(message));
        self.emit(Event::Progress { current, total, units, message }).await
    }

    async fn artifact_ref(&mut self, artifact: events::Reference) -> Result<(), Error> {
        let events::Reference { uri, content_type, byte_size, sha256 } = artifact;
        if uri.is_empty() || uri.len() > URI_BYTES_MAX || content_type.len() > NAME_BYTES_MAX {
            return Err(invalid(format!(
                "an artifact has a URI of 1 to {URI_BYTES_MAX} bytes and a content type of at most {NAME_BYTES_MAX}"
            )));
        }
        if sha256.as_ref().is_some_and(|sha256| !is_sha256(sha256)) {
            return Err(invalid("`sha256` must be 64 hexadecimal digits"));
        }
        self.emit(Event::ArtifactRef { uri, content_type, byte_size, sha256 }).await
    }

    async fn vendor(&mut self, kind: String, body: String) -> Result<(), Error> {
        if !is_vendor_kind(&kind) {
            return Err(invalid("an event of an agent's own kind is named `x-vendor.<vendor>.<name>`"));
        }
        let max = self.limits.text_bytes_max;
        if body.len() > max {
            return Err(invalid(format!("the body is {} bytes; at most {max} fit an event", body.len())));
        }
        let body = Json::parse(body).map_err(|error| invalid(format!("the body: {error}")))?;
        if !body.is_object() {
            return Err(invalid("the body must be a JSON object"));
        }
        self.emit(Event::Vendor { kind, body }).await
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// `x-vendor.<vendor>.<name>`, at most 128 bytes.
fn is_vendor_kind(kind: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let mut parts = kind.split('.');
    kind.len() <= NAME_BYTES_MAX && parts.next() == Some("x-vendor") && parts.clone().count() >= 2 && parts.all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_kind_names_its_vendor() {
        for (kind, expected) in [
            ("x-vendor.acme.k", true),
            ("x-vendor.acme.k.v2", true),
            ("x-vendor.acme", false),
            ("x-vendor..k", false),
            ("x-vendor.acme.k k", false),
            ("log", false),
            ("", false),
        ] {
            assert_eq!(is_vendor_kind(kind), expected, "{kind}");
        }
    }
}
