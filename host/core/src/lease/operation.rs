//! What an agent may ask to do, parsed, one type an operation (ARCP §9.3).
//!
//! A constructor parses the agent's text once. Nothing changes an operation
//! afterwards, so what a gate decided about is what an effect will do.

use super::{
    Namespace,
    target::{AgentName, FetchUrl, FilePath, ModelName, Target, TargetError, ToolName},
};

/// Something a lease must cover before it happens.
pub trait Operation {
    /// The namespace whose patterns are asked.
    fn namespace(&self) -> &Namespace;

    /// The name under which a `tool_call` event shows it (ARCP §8.2).
    fn name(&self) -> &'static str;

    /// What it acts on.
    fn target(&self) -> Target<'_>;
}

macro_rules! file_operation {
    ($(#[$doc:meta])* $name:ident, $namespace:ident, $event:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            path: FilePath,
        }

        impl $name {
            /// Parses the path it acts on.
            ///
            /// # Errors
            ///
            /// If the text is no absolute path, see [`FilePath::parse`].
            pub fn parse(path: &str) -> Result<Self, TargetError> {
                Ok(Self { path: FilePath::parse(path)? })
            }

            /// The path it acts on.
            #[must_use]
            pub fn path(&self) -> &FilePath {
                &self.path
            }
        }

        impl From<FilePath> for $name {
            fn from(path: FilePath) -> Self {
                Self { path }
            }
        }

        impl Operation for $name {
            fn namespace(&self) -> &Namespace {
                &Namespace::$namespace
            }

            fn name(&self) -> &'static str {
                $event
            }

            fn target(&self) -> Target<'_> {
                Target::File(&self.path)
            }
        }
    };
}

file_operation!(
    /// Reads a whole file.
    ReadFile, FsRead, "fs.read"
);
file_operation!(
    /// Lists a directory.
    ListDirectory, FsRead, "fs.list"
);
file_operation!(
    /// Describes a file or directory.
    Stat, FsRead, "fs.stat"
);
file_operation!(
    /// Replaces or creates a file.
    WriteFile, FsWrite, "fs.write"
);
file_operation!(
    /// Adds to the end of a file, or creates it.
    AppendFile, FsWrite, "fs.append"
);
file_operation!(
    /// Creates a directory.
    CreateDirectory, FsWrite, "fs.create_dir"
);
file_operation!(
    /// Removes a file or an empty directory.
    Remove, FsWrite, "fs.remove"
);

/// Reads part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRange {
    path: FilePath,
    offset: u64,
    length: u64,
}

impl ReadRange {
    /// Parses the path; any offset and length will do, the effect bounds them.
    ///
    /// # Errors
    ///
    /// If the text is no absolute path, see [`FilePath::parse`].
    pub fn parse(path: &str, offset: u64, length: u64) -> Result<Self, TargetError> {
        Ok(Self { path: FilePath::parse(path)?, offset, length })
    }

    /// The path it acts on.
    #[must_use]
    pub fn path(&self) -> &FilePath {
        &self.path
    }

    /// The first byte asked for.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes the agent asked for; it may be any number.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Operation for ReadRange {
    fn namespace(&self) -> &Namespace {
        &Namespace::FsRead
    }

    fn name(&self) -> &'static str {
        "fs.read_range"
    }

    fn target(&self) -> Target<'_> {
        Target::File(&self.path)
    }
}

/// Makes one HTTP request.
///
/// A redirect is another request to another URL and needs another permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    method: Box<str>,
    url: FetchUrl,
}

impl Fetch {
    /// Parses a method and a URL.
    ///
    /// The method is at most 32 ASCII letters or `-` and is kept in upper
    /// case. `CONNECT` is refused: a tunnel would carry bytes to a place the
    /// lease was never asked about.
    ///
    /// # Errors
    ///
    /// If either is malformed, see [`FetchUrl::parse`].
    pub fn parse(method: &str, url: &str) -> Result<Self, TargetError> {
        let error = |reason| TargetError::new("an HTTP method", method, reason);
        if method.is_empty() || method.len() > METHOD_BYTES_MAX {
            return Err(error("it must be 1 to 32 letters"));
        }
        if !method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') {
            return Err(error("it must be ASCII letters"));
        }
        if method.eq_ignore_ascii_case("CONNECT") {
            return Err(error("a tunnel would reach past the lease"));
        }
        Ok(Self { method: method.to_ascii_uppercase().into(), url: FetchUrl::parse(url)? })
    }

    /// The method, in upper case.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Where the request goes.
    #[must_use]
    pub fn url(&self) -> &FetchUrl {
        &self.url
    }
}

impl Operation for Fetch {
    fn namespace(&self) -> &Namespace {
        &Namespace::NetFetch
    }

    fn name(&self) -> &'static str {
        "net.fetch"
    }

    fn target(&self) -> Target<'_> {
        Target::Url(&self.url)
    }
}

macro_rules! named_operation {
    ($(#[$doc:meta])* $name:ident { $field:ident: $target:ident }, $namespace:ident, $variant:ident, $event:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $field: $target,
        }

        impl $name {
            /// Parses the name it acts on.
            ///
            /// # Errors
            ///
            /// If the text is no such name.
            pub fn parse($field: &str) -> Result<Self, TargetError> {
                Ok(Self { $field: $target::parse($field)? })
            }

            /// The name it acts on.
            #[must_use]
            pub fn $field(&self) -> &$target {
                &self.$field
            }
        }

        impl From<$target> for $name {
            fn from($field: $target) -> Self {
                Self { $field }
            }
        }

        impl Operation for $name {
            fn namespace(&self) -> &Namespace {
                &Namespace::$namespace
            }

            fn name(&self) -> &'static str {
                $event
            }

            fn target(&self) -> Target<'_> {
                Target::$variant(&self.$field)
            }
        }
    };
}

named_operation!(
    /// Calls a registered tool.
    CallTool { tool: ToolName }, ToolCall, Tool, "tool.call"
);
named_operation!(
    /// Invokes a model (ARCP §9.7).
    UseModel { model: ModelName }, ModelUse, Model, "model.use"
);
named_operation!(
    /// Hands part of the job to another agent (ARCP §10).
    Delegate { agent: AgentName }, AgentDelegate, Agent, "agent.delegate"
);

const METHOD_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCP §9.2: each operation is paid for by the namespace the contract names.
    #[test]
    fn every_operation_says_which_grant_it_needs_and_on_what() {
        let operations: [(Box<dyn Operation>, &str, &str, &str); 12] = [
            (Box::new(ReadFile::parse("/a").unwrap()), "fs.read", "fs.read", "/a"),
            (Box::new(ReadRange::parse("/a", 1, u64::MAX).unwrap()), "fs.read", "fs.read_range", "/a"),
            (Box::new(ListDirectory::parse("/").unwrap()), "fs.read", "fs.list", "/"),
            (Box::new(Stat::parse("//a/").unwrap()), "fs.read", "fs.stat", "/a"),
            (Box::new(WriteFile::parse("/a/./b").unwrap()), "fs.write", "fs.write", "/a/b"),
            (Box::new(AppendFile::parse("/a").unwrap()), "fs.write", "fs.append", "/a"),
            (Box::new(CreateDirectory::parse("/a").unwrap()), "fs.write", "fs.create_dir", "/a"),
            (Box::new(Remove::parse("/a").unwrap()), "fs.write", "fs.remove", "/a"),
            (Box::new(Fetch::parse("get", "HTTPS://A.test:443").unwrap()), "net.fetch", "net.fetch", "https://a.test/"),
            (Box::new(CallTool::parse("search.web").unwrap()), "tool.call", "tool.call", "search.web"),
            (Box::new(UseModel::parse("tier-fast/x").unwrap()), "model.use", "model.use", "tier-fast/x"),
            (Box::new(Delegate::parse("helper@1.0").unwrap()), "agent.delegate", "agent.delegate", "helper@1.0"),
        ];
        for (operation, namespace, name, target) in operations {
            assert_eq!(operation.namespace().to_string(), namespace, "{name}");
            assert_eq!(operation.name(), name);
            assert_eq!(operation.target().to_string(), target, "{name}");
        }
    }

    #[test]
    fn a_method_is_a_word_and_never_a_tunnel() {
        for (method, expected) in [
            ("GET", Some("GET")),
            ("patch", Some("PATCH")),
            ("VERSION-CONTROL", Some("VERSION-CONTROL")),
            ("", None),
            ("connect", None),
            ("GET /x HTTP/1.1\r\nHost: b", None),
            ("GËT", None),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", None),
        ] {
            let parsed = Fetch::parse(method, "https://a.test/").ok();
            assert_eq!(parsed.as_ref().map(Fetch::method), expected, "{method}");
        }
    }
}
