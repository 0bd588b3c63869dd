//! What a component asks for, read from its bytes before an engine sees them.
//!
//! One pass over the binary validates it with exactly the WebAssembly features
//! the engine is given ([`features`]), lists what it imports and exports, and
//! holds the imports against `CONTRACT` and `INERT`. The linker refuses
//! the same components later; the audit refuses them first, with a sentence
//! that tells the author what to change, and it tells the operator which lease
//! namespaces an agent can ever use, whatever its code does.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use wasmparser::{
    BinaryReader, BinaryReaderError, ComponentExternalKind, ComponentTypeRef, Encoding, FuncValidatorAllocations,
    Parser, Payload, TypeBounds, ValidPayload, Validator, WasmFeatures, component_types::ComponentEntityType,
    types::Types,
};

/// The largest component that is looked at, unless the operator says otherwise: 64 MiB.
///
/// An agent in Python, the largest kind there is, has 18 MiB.
pub const AUDIT_SIZE_BYTES_MAX: usize = 64 << 20;

/// The interfaces of `leasehold:agent`: each with its functions, under the
/// lease namespace that pays for them (ARCP §9.2), or under none.
const CONTRACT: &[(&str, Grants)] = &[
    ("types", &[]),
    (
        "fs",
        &[
            (Some("fs.read"), &["read", "read-range", "list", "stat"]),
            (Some("fs.write"), &["write", "append", "create-dir", "remove"]),
        ],
    ),
    ("net", &[(Some("net.fetch"), &["fetch", "start", "start-stream"]), (None, &["finish", "head", "next"])]),
    ("tool", &[(Some("tool.call"), &["call", "start"]), (None, &["list", "finish"])]),
    ("model", &[(Some("model.use"), &["complete", "start", "start-stream"]), (None, &["list", "finish", "next"])]),
    (
        "delegate",
        &[(Some("agent.delegate"), &["run", "start", "start-stream"]), (None, &["finish", "job-id", "next-event"])],
    ),
    ("calls", &[(None, &["[method]pending-call.call-id", "wait-any"])]),
    ("metrics", &[(None, &["emit"])]),
    ("events", &[(None, &["log", "thought", "status", "progress", "artifact-ref", "vendor"])]),
    ("output", &[(None, &["write-text", "write-bytes", "finish"])]),
    ("job", &[(None, &["id", "agent", "trace-id", "expires-at", "budget", "grants", "cancel-requested"])]),
];

/// One interface's functions, in groups under the namespace that pays for them.
type Grants = &'static [(Option<&'static str>, &'static [&'static str])];

/// The package of `CONTRACT`, and its versions this host serves.
const CONTRACT_PACKAGE: (&str, &str) = ("leasehold:agent", "0.1.");

/// The interfaces of WASI that reach nothing here.
///
/// Language runtimes import them whether a program uses them or not, so they
/// are linked, with no folder, no environment, no argument and no address
/// behind them. `wasi:http` is not among them: no runtime needs it to start.
const INERT: &[(&str, &[&str])] = &[
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:clocks", &["wall-clock", "monotonic-clock"]),
    ("wasi:random", &["random", "insecure", "insecure-seed"]),
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:filesystem", &["types", "preopens"]),
    (
        "wasi:sockets",
        &["network", "instance-network", "ip-name-lookup", "tcp", "tcp-create-socket", "udp", "udp-create-socket"],
    ),
];

/// The versions of WASI this host serves.
const INERT_VERSIONS: &str = "0.2.";

/// The function every agent exports.
const ENTRY: &str = "run";

/// The WebAssembly features a component may use; the engine is given the same.
///
/// What no agent's toolchain emits is off, because each proposal is code that
/// could be wrong: garbage collection with all its reference types, threads,
/// 64-bit memories, exceptions, stack switching. Relaxed SIMD is off because
/// its results differ between machines, and a replay must not. Component-model
/// async is off for the contract's sake (see `wit/world.wit`).
#[must_use]
pub fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        .union(WasmFeatures::EXTENDED_CONST)
        .union(WasmFeatures::MULTI_MEMORY)
        .union(WasmFeatures::TAIL_CALL)
        .union(WasmFeatures::COMPONENT_MODEL)
        .difference(WasmFeatures::GC_TYPES)
}

/// Reads what a component is and asks for.
///
/// An answer means that the binary is a valid component, not that it may run:
/// [`Audit::check`] says that. Takes up to 0.2 s for a component of 20 MB, so
/// an async caller does it on a blocking thread.
///
/// # Errors
///
/// If the bytes are no component, or one the engine cannot take.
pub fn audit(bytes: &[u8], size_bytes_max: usize) -> Result<Audit, AuditError> {
    if bytes.len() > size_bytes_max {
        return Err(AuditError::TooLarge { size_bytes: bytes.len(), size_bytes_max });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(AuditError::NotWasm(guess(bytes)));
    }
    let scan = Scan::new(bytes).map_err(|error| explain(bytes, &error))?;
    if scan.encoding == Some(Encoding::Module) {
        return Err(AuditError::CoreModule);
    }
    if scan.is_wit_package() {
        return Err(AuditError::WitPackage);
    }
    Ok(scan.judge(bytes))
}

/// What a component is and asks for, and what of that is refused.
///
/// Only that of a good agent can be read back from JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// SHA-256 of the bytes: what a job's record names its component by.
    pub digest: Digest,
    /// The length of the binary.
    pub size_bytes: usize,
    /// What the component imports and is given.
    pub imports: Vec<Import>,
    /// Every reason why the component may not run. Empty for a good agent.
    #[serde(deserialize_with = "nothing_refused")]
    pub refused: Vec<Objection>,
    /// The names the component exports. Only `run` is ever used.
    pub exports: Vec<String>,
    /// The lease namespaces the component can ever use, in the contract's order.
    pub authority: Vec<Authority>,
    /// How many core modules are inside.
    pub core_modules: u32,
    /// How many functions they define.
    pub functions: u64,
    /// How much memory they declare to start with.
    pub memory_min_bytes: u64,
}

impl Audit {
    /// Says whether the component may run as an agent.
    ///
    /// # Errors
    ///
    /// If it asks for more than the contract, or has no entry; all reasons at once.
    pub fn check(&self) -> Result<(), Refused> {
        if self.refused.is_empty() { Ok(()) } else { Err(Refused(self.refused.clone())) }
    }

    /// Whether it can give other agents what it is granted, and cannot use itself (ARCP §9.4).
    #[must_use]
    pub fn hands_on(&self) -> bool {
        self.authority.iter().any(|authority| authority.namespace == "agent.delegate")
    }
}

/// The name of a lease namespace, which is one of the contract's.
pub type Namespace = &'static str;

/// One import of a component, of those the host satisfies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The name, such as `leasehold:agent/fs@0.1.0`.
    pub name: String,
    /// The functions the component takes from it. Empty for what brings only types.
    pub functions: Vec<String>,
    /// The lease namespaces its functions draw on. Empty for what needs no grant.
    #[serde(deserialize_with = "namespaces")]
    pub authority: Vec<Namespace>,
}

/// One lease namespace a component can use, if its lease grants anything in it (ARCP §9.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The namespace, such as `fs.read`.
    #[serde(deserialize_with = "namespace")]
    pub namespace: Namespace,
    /// The functions it imports that make it so, such as `fs.list`.
    pub because: Vec<String>,
}

fn nothing_refused<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Objection>, D::Error> {
    match Vec::<de::IgnoredAny>::deserialize(deserializer)?.is_empty() {
        true => Ok(Vec::new()),
        false => Err(de::Error::custom("the component was refused")),
    }
}

fn namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    known(&String::deserialize(deserializer)?)
}

fn namespaces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'static str>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|name| known(name)).collect()
}

/// Finds a lease namespace by its name.
fn known<E: de::Error>(name: &str) -> Result<&'static str, E> {
    let mut namespaces = CONTRACT.iter().flat_map(|(_, grants)| grants.iter().filter_map(|(namespace, _)| *namespace));
    namespaces.find(|known| *known == name).ok_or_else(|| E::custom("no such lease namespace"))
}

/// One reason why a component may not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Objection {
    /// The import or export it is about, shortened if it is long.
    pub item: String,
    /// What is wrong with it.
    pub reason: Reason,
}

impl Objection {
    fn new(item: &str, reason: Reason) -> Self {
        Self { item: printable(item, 128), reason }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.item, self.reason)
    }
}

/// What is wrong with an import or export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The host has no such interface.
    #[error("is nothing this host offers")]
    Unknown,
    /// `wasi:http`, which many toolchains import unless told not to.
    #[error("would be network access, which no agent has by itself: build without WASI HTTP")]
    Http,
    /// The host has the interface in other versions.
    #[error("is of a version this host does not offer; it offers {0}x")]
    Version(&'static str),
    /// The host has the interface, without this function.
    #[error("has no function `{0}` on this host: the agent was built for a newer contract")]
    Function(String),
    /// Something else than an interface or a type.
    #[error("is a {0}, and an agent imports only interfaces")]
    Kind(&'static str),
    /// There is no entry.
    #[error("is not exported: an agent exports the function `run` of world `leasehold:agent/agent`")]
    NoEntry,
    /// The entry cannot be called.
    #[error("is a {0}, and has to be a function")]
    EntryKind(&'static str),
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A component that may not run, with every reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refused(pub Vec<Objection>);

impl Refused {
    /// A component may import a million things; a message names so many of them.
    const SHOWN: usize = 20;
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the component cannot run as an agent: ")?;
        for (index, objection) in self.0.iter().take(Self::SHOWN).enumerate() {
            write!(f, "{}{objection}", if index == 0 { "" } else { "; " })?;
        }
        match self.0.len().saturating_sub(Self::SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Why bytes are no component this host can look into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Larger than the operator allows.
    #[error(
        "the component has {size_bytes} bytes, more than the {size_bytes_max} allowed (limits.component_bytes_max): \
         build in release mode and strip it"
    )]
    TooLarge {
        /// What it has.
        size_bytes: usize,
        /// What it may have.
        size_bytes_max: usize,
    },
    /// No WebAssembly binary.
    #[error("this is no WebAssembly component but {0}")]
    NotWasm(&'static str),
    /// A module, as compilers without component support write it.
    #[error(
        "this is a core module, not a component: build for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// Types without code.
    #[error("this is a WIT package, which has types and no code: give the component that was built from it")]
    WitPackage,
    /// The file ends in the middle of itself.
    #[error("the component is cut short after {size_bytes} bytes: copy or build it again")]
    Truncated {
        /// How much of it there is.
        size_bytes: usize,
    },
    /// It needs a feature that is switched off.
    #[error("the component needs {feature}, which is switched off here (at byte {offset}): {message}")]
    Feature {
        /// The feature in words.
        feature: String,
        /// Where in the binary.
        offset: usize,
        /// What was found there.
        message: String,
    },
    /// It breaks a rule of the format.
    #[error("the component is not valid (at byte {offset}): {message}")]
    Invalid {
        /// Where in the binary.
        offset: usize,
        /// Which rule.
        message: String,
    },
}

/// The SHA-256 of a component's bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hexadecimal digits in lower case")]
pub struct DigestError;

impl Digest {
    /// Digests bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Upper case is refused, so that a digest has one spelling.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(DigestError),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(DigestError);
        }
        let mut digest = [0; 32];
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What one pass over a binary found.
#[derive(Default)]
struct Scan<'a> {
    encoding: Option<Encoding>,
    imports: Vec<(&'a str, ComponentTypeRef)>,
    exports: Vec<(&'a str, ComponentExternalKind)>,
    core_modules: u32,
    functions: u64,
    memory_min_bytes: u64,
    types: Option<Types>,
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, BinaryReaderError> {
        let mut scan = Self::default();
        let mut validator = Validator::new_with_features(features());
        let mut allocations = FuncValidatorAllocations::default();
        let mut parser = Parser::new(0);
        parser.set_features(features());
        // Only what stands at depth 1 is the component's own; the imports of a
        // component inside it are satisfied inside it.
        let mut depth = 0_u32;
        for payload in parser.parse_all(bytes) {
            let payload = payload?;
            match validator.payload(&payload)? {
                ValidPayload::Func(function, body) => {
                    let mut function = function.into_validator(allocations);
                    function.validate(&body)?;
                    allocations = function.into_allocations();
                }
                // The last one to end is the component itself.
                ValidPayload::End(types) => scan.types = Some(types),
                ValidPayload::Ok | ValidPayload::Parser(_) => {}
            }
            match payload {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    scan.encoding = scan.encoding.or(Some(encoding));
                    scan.core_modules += u32::from(encoding == Encoding::Module);
                }
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        let import = import?;
                        scan.imports.push((import.name.name, import.ty));
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        let export = export?;
                        scan.exports.push((export.name.name, export.kind));
                    }
                }
                Payload::FunctionSection(section) => scan.functions += u64::from(section.count()),
                Payload::MemorySection(section) => {
                    for memory in section {
                        let size_bytes = memory?.initial.saturating_mul(1 << 16);
                        scan.memory_min_bytes = scan.memory_min_bytes.saturating_add(size_bytes);
                    }
                }
                _ => {}
            }
        }
        Ok(scan)
    }

    /// A package of WIT in its binary form is a component that exports types and has nothing else.
    fn is_wit_package(&self) -> bool {
        self.core_modules == 0
            && self.imports.is_empty()
            && !self.exports.is_empty()
            && self.exports.iter().all(|(_, kind)| *kind == ComponentExternalKind::Type)
    }

    fn judge(&self, bytes: &[u8]) -> Audit {
        let mut imports = Vec::new();
        let mut refused = Vec::new();
        for &(name, kind) in &self.imports {
            match self.judge_import(name, kind) {
                Ok(import) => imports.push(import),
                Err(reasons) => refused.extend(reasons.into_iter().map(|reason| Objection::new(name, reason))),
            }
        }
        match self.exports.iter().find(|(name, _)| *name == ENTRY) {
            Some((_, ComponentExternalKind::Func)) => {}
            Some((_, kind)) => refused.push(Objection::new(ENTRY, Reason::EntryKind(describe(*kind)))),
            None => refused.push(Objection::new(ENTRY, Reason::NoEntry)),
        }
        Audit {
            digest: Digest::of(bytes),
            size_bytes: bytes.len(),
            authority: authority(&imports),
            imports,
            refused,
            exports: self.exports.iter().map(|(name, _)| printable(name, 128)).collect(),
            core_modules: self.core_modules,
            functions: self.functions,
            memory_min_bytes: self.memory_min_bytes,
        }
    }

    fn judge_import(&self, name: &str, kind: ComponentTypeRef) -> Result<Import, Vec<Reason>> {
        match kind {
            // A world that `use`s a type imports the type by its name; that is
            // a description and carries no authority.
            ComponentTypeRef::Type(TypeBounds::Eq(_)) => {
                Ok(Import { name: printable(name, 128), functions: vec![], authority: vec![] })
            }
            ComponentTypeRef::Type(TypeBounds::SubResource) => Err(vec![Reason::Kind("resource")]),
            ComponentTypeRef::Instance(_) => {
                let functions = self.functions_of(name);
                let grants = match grants_of(name) {
                    Ok(grants) => grants,
                    Err(reason) => return Err(vec![reason]),
                };
                let Some(grants) = grants else {
                    return Ok(Import { name: name.to_owned(), functions, authority: vec![] });
                };
                let strange: Vec<_> = functions
                    .iter()
                    .filter(|function| !grants.iter().any(|(_, known)| known.contains(&function.as_str())))
                    .map(|function| Reason::Function(printable(function, 64)))
                    .collect();
                if !strange.is_empty() {
                    return Err(strange);
                }
                let authority = grants
                    .iter()
                    .filter(|(_, known)| functions.iter().any(|function| known.contains(&function.as_str())))
                    .filter_map(|(namespace, _)| *namespace)
                    .collect();
                Ok(Import { name: name.to_owned(), functions, authority })
            }
            other => Err(vec![Reason::Kind(describe(other.kind()))]),
        }
    }

    /// The functions an imported interface is used for: a component's type lists only what it takes.
    fn functions_of(&self, import: &str) -> Vec<String> {
        let Some(types) = self.types.as_ref().map(Types::as_ref) else { return vec![] };
        let Some(ComponentEntityType::Instance(id)) = types.component_item_for_import(import).map(|item| item.ty)
        else {
            return vec![];
        };
        let Some(instance) = types.get(id) else { return vec![] };
        let functions = instance.exports.iter().filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)));
        functions.map(|(name, _)| name.clone()).collect()
    }
}

/// Finds an interface by its full name: in the contract, among the inert ones (`None`), or not at all.
fn grants_of(name: &str) -> Result<Option<Grants>, Reason> {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    let (package, interface) = path.split_once('/').ok_or(Reason::Unknown)?;
    if package == "wasi:http" {
        return Err(Reason::Http);
    }
    if package == CONTRACT_PACKAGE.0 {
        let found = CONTRACT.iter().find(|(known, _)| *known == interface);
        let (_, grants) = found.ok_or(Reason::Unknown)?;
        return if of_line(version, CONTRACT_PACKAGE.1) {
            Ok(Some(grants))
        } else {
            Err(Reason::Version(CONTRACT_PACKAGE.1))
        };
    }
    let inert = INERT.iter().any(|(known, interfaces)| *known == package && interfaces.contains(&interface));
    match (inert, of_line(version, INERT_VERSIONS)) {
        (true, true) => Ok(None),
        (true, false) => Err(Reason::Version(INERT_VERSIONS)),
        (false, _) => Err(Reason::Unknown),
    }
}

/// Whether a version is a plain one of a line such as `0.2.`; a pre-release is not.
fn of_line(version: &str, line: &str) -> bool {
    version.strip_prefix(line).is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Turns imports round: from what each is used for to what the component can do.
fn authority(imports: &[Import]) -> Vec<Authority> {
    let mut found = Vec::new();
    for (interface, grants) in CONTRACT {
        for (namespace, known) in *grants {
            let Some(namespace) = *namespace else { continue };
            let full_name = format!("{}/{interface}@", CONTRACT_PACKAGE.0);
            let because: Vec<_> = imports
                .iter()
                .filter(|import| import.name.starts_with(&full_name))
                .flat_map(|import| &import.functions)
                .filter(|function| known.contains(&function.as_str()))
                .map(|function| format!("{interface}.{function}"))
                .collect();
            if !because.is_empty() {
                found.push(Authority { namespace, because });
            }
        }
    }
    found
}

fn describe(kind: ComponentExternalKind) -> &'static str {
    match kind {
        ComponentExternalKind::Module => "core module",
        ComponentExternalKind::Func => "function",
        ComponentExternalKind::Value => "value",
        ComponentExternalKind::Type => "type",
        ComponentExternalKind::Instance => "interface",
        ComponentExternalKind::Component => "component",
    }
}

/// Says what bytes without the WebAssembly header are, as far as one can tell.
fn guess(bytes: &[u8]) -> &'static str {
    let text = bytes.trim_ascii_start();
    if bytes.is_empty() {
        "an empty file"
    } else if bytes.starts_with(b"\x7fELF") {
        "a native program or a precompiled component: give the .wasm file"
    } else if text.starts_with(b"(component") || text.starts_with(b"(module") {
        "WebAssembly text: turn it into a binary with `wasm-tools parse`"
    } else if text.starts_with(b"package ") || text.starts_with(b"//") {
        "source text: give the component that was built from it"
    } else {
        "some other kind of file"
    }
}

/// Says why a binary was rejected in terms of what to do about it.
fn explain(bytes: &[u8], error: &BinaryReaderError) -> AuditError {
    if is_cut_short(bytes) {
        return AuditError::Truncated { size_bytes: bytes.len() };
    }
    let (offset, message) = (error.offset(), printable(error.message(), 300));
    match error.missing_wasm_feature() {
        Some(missing) => AuditError::Feature { feature: describe_features(missing), offset, message },
        None => AuditError::Invalid { offset, message },
    }
}

fn describe_features(missing: WasmFeatures) -> String {
    let of_async = WasmFeatures::CM_ASYNC
        .union(WasmFeatures::CM_ASYNC_STACKFUL)
        .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
        .union(WasmFeatures::CM_THREADING)
        .union(WasmFeatures::CM_ERROR_CONTEXT);
    if missing.intersects(of_async) {
        return "component-model async (no `async func` in the world; with componentize-qjs, build with \
                `--backend-qjs-disable-async`)"
            .to_owned();
    }
    let names: Vec<_> = missing.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")).collect();
    format!("the WebAssembly feature {}", names.join(", "))
}

/// Whether the last section claims more bytes than there are: then the file was cut, not miscompiled.
fn is_cut_short(bytes: &[u8]) -> bool {
    let Some(sections) = bytes.get(8..) else { return true };
    let mut reader = BinaryReader::new(sections, 8);
    while !reader.eof() {
        let section = reader.read_u8().and_then(|_| reader.read_var_u32());
        if section.and_then(|size_bytes| reader.read_bytes(size_bytes as usize)).is_err() {
            return true;
        }
    }
    false
}

/// What strangers wrote, such as the names in a component: what is shown of it is short and has no control characters.
pub(super) fn printable(text: &str, length_max: usize) -> String {
    let shown = text.chars().take(length_max).map(|c| if c.is_control() { ' ' } else { c });
    let cut = text.chars().nth(length_max).map(|_| '…');
    shown.chain(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component with `run`, and more as WAT.
    fn agent(more: &str) -> Vec<u8> {
        wat(&format!(
            r#"(component {more}
                (core module $m (memory 2) (func (export "run")))
                (core instance $i (instantiate $m))
                (func $run (canon lift (core func $i "run")))
                (export "run" (func $run)))"#
        ))
    }

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn read(bytes: &[u8]) -> Audit {
        audit(bytes, AUDIT_SIZE_BYTES_MAX).unwrap_or_else(|error| panic!("{error}"))
    }

    fn objections(bytes: &[u8]) -> Vec<(String, Reason)> {
        read(bytes).refused.into_iter().map(|objection| (objection.item, objection.reason)).collect()
    }

    #[test]
    fn a_component_with_run_and_nothing_else_may_run() {
        let bytes = agent("");
        let audit = read(&bytes);
        assert_eq!(audit.check(), Ok(()));
        assert_eq!((audit.core_modules, audit.functions, audit.memory_min_bytes), (1, 1, 131_072));
        assert_eq!((audit.size_bytes, audit.exports), (bytes.len(), vec!["run".to_owned()]));
        assert!(audit.authority.is_empty());
    }

    #[test]
    fn what_is_no_component_is_told_what_it_is() {
        let valid = agent("");
        let table: &[(&str, Vec<u8>, &str)] = &[
            ("empty", vec![], "an empty file"),
            ("zeros", vec![0; 64], "some other kind of file"),
            ("native", b"\x7fELF\x02\x01\x01".to_vec(), "a native program"),
            ("text", b"\n (component)".to_vec(), "WebAssembly text"),
            ("header", b"\0asm".to_vec(), "cut short after 4 bytes"),
            ("cut", valid[..valid.len() - 1].to_vec(), "cut short"),
            ("module", wat("(module)"), "a core module"),
            ("package", wat(r#"(component (type $t (component)) (export "a" (type $t)))"#), "a WIT package"),
            ("broken", wat("(component (core module (func (result i32))))"), "not valid (at byte"),
            ("large", vec![0; AUDIT_SIZE_BYTES_MAX + 1], "more than the 67108864 allowed"),
        ];
        for (what, bytes, expected) in table {
            let error = audit(bytes, AUDIT_SIZE_BYTES_MAX).expect_err(what).to_string();
            assert!(error.contains(expected), "{what}: {error}");
        }
    }

    #[test]
    fn a_component_cut_anywhere_never_runs() {
        // Without names: a custom section at the end is the one thing a component can lose.
        let bytes = wat(r#"(component
                (core module (func (export "run")))
                (core instance (instantiate 0))
                (func (canon lift (core func 0 "run")))
                (export "run" (func 0)))"#);
        assert_eq!(read(&bytes).check(), Ok(()));
        for length in 0..bytes.len() {
            let outcome = audit(&bytes[..length], AUDIT_SIZE_BYTES_MAX);
            assert!(outcome.is_err() || outcome.is_ok_and(|audit| audit.check().is_err()), "{length} bytes");
        }
    }

    #[test]
    fn only_the_contract_and_inert_wasi_are_given() {
        use Reason::*;
        let table = [
            ("leasehold:agent/fs@0.1.0", Ok(())),
            ("leasehold:agent/fs@0.1.17", Ok(())),
            ("leasehold:agent/fs@0.2.0", Err(Version("0.1."))),
            ("leasehold:agent/fs@0.1.0-rc.1", Err(Version("0.1."))), // a pre-release promises nothing
            ("leasehold:agent/fs", Err(Version("0.1."))),
            ("leasehold:agent/shell@0.1.0", Err(Unknown)),
            ("leasehold:agents/fs@0.1.0", Err(Unknown)),
            ("wasi:io/poll@0.2.0", Ok(())),
            ("wasi:io/poll@0.2.12", Ok(())),
            ("wasi:io/poll@0.3.0", Err(Version("0.2."))),
            ("wasi:io/poll@0.2.0-rc-2023-11-10", Err(Version("0.2."))),
            ("wasi:sockets/tcp@0.2.9", Ok(())), // refused at each call instead: Python always imports it
            ("wasi:sockets/raw@0.2.9", Err(Unknown)),
            ("wasi:http/types@0.2.10", Err(Http)),
            ("wasi:http/outgoing-handler@0.2.10", Err(Http)),
            ("wasi:config/store@0.2.0", Err(Unknown)),
            ("acme:backdoor/shell@1.0.0", Err(Unknown)),
            ("shell", Err(Unknown)),
        ];
        for (name, expected) in table {
            let bytes = agent(&format!(r#"(import "{name}" (instance))"#));
            let expected: Vec<_> = expected.err().map(|reason| (name.to_owned(), reason)).into_iter().collect();
            assert_eq!(objections(&bytes), expected, "{name}");
        }
    }

    #[test]
    fn an_import_that_is_no_interface_is_refused_unless_it_is_a_type() {
        let table = [
            (r#"(type $t (enum "a")) (import "error-code" (type (eq $t)))"#, None),
            (r#"(import "handle" (type (sub resource)))"#, Some(("handle", Reason::Kind("resource")))),
            (r#"(import "exec" (func))"#, Some(("exec", Reason::Kind("function")))),
            (r#"(import "code" (core module))"#, Some(("code", Reason::Kind("core module")))),
            (r#"(import "part" (component))"#, Some(("part", Reason::Kind("component")))),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected.map(|(item, reason)| (item.to_owned(), reason)).into_iter().collect();
            assert_eq!(objections(&agent(text)), expected, "{text}");
        }
    }

    #[test]
    fn every_reason_is_given_at_once() {
        let audit = read(&wat(
            r#"(component (import "wasi:http/types@0.2.10" (instance)) (import "acme:x/y@1.0.0" (instance)))"#,
        ));
        let message = audit.check().unwrap_err().to_string();
        for part in
            ["wasi:http/types@0.2.10 would be network access", "acme:x/y@1.0.0 is nothing", "run is not exported"]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn the_entry_has_to_be_a_function() {
        let table = [
            ("(component)", Reason::NoEntry),
            (r#"(component (instance $i) (export "run" (instance $i)))"#, Reason::EntryKind("interface")),
            (
                r#"(component (type $t u8) (core module $m) (export "run" (core module $m)))"#,
                Reason::EntryKind("core module"),
            ),
        ];
        for (text, reason) in table {
            assert_eq!(objections(&wat(text)), [("run".to_owned(), reason)], "{text}");
        }
    }

    #[test]
    fn a_function_outside_the_contract_is_refused_by_name() {
        let bytes =
            agent(r#"(import "leasehold:agent/fs@0.1.9" (instance (export "read" (func)) (export "chmod" (func))))"#);
        let expected = ("leasehold:agent/fs@0.1.9".to_owned(), Reason::Function("chmod".to_owned()));
        assert_eq!(objections(&bytes), [expected]);
    }

    #[test]
    fn authority_is_what_the_imported_functions_can_use() {
        let audit = read(&agent(
            r#"(import "leasehold:agent/fs@0.1.0" (instance
                    (export "list" (func)) (export "read" (func)) (export "write" (func))))
               (import "leasehold:agent/metrics@0.1.0" (instance (export "emit" (func))))"#,
        ));
        assert_eq!(
            audit.authority,
            [
                Authority { namespace: "fs.read", because: vec!["fs.list".into(), "fs.read".into()] },
                Authority { namespace: "fs.write", because: vec!["fs.write".into()] },
            ]
        );
        assert_eq!(audit.imports[0].authority, ["fs.read", "fs.write"]);
        assert_eq!(audit.imports[0].functions, ["list", "read", "write"]);
        assert!(audit.imports[1].authority.is_empty());
    }

    /// To start something needs a grant; to list what there is, to wait, and to take an end do not.
    #[test]
    fn authority_is_what_can_begin_and_not_what_can_be_waited_for() {
        let interface = |name: &str, functions: &[&str]| {
            let exports: String = functions.iter().map(|name| format!("(export \"{name}\" (func))")).collect();
            format!("(import \"leasehold:agent/{name}@0.1.0\" (instance {exports}))")
        };
        let authority = |imports: &[(&str, &[&str])]| {
            let imports: String = imports.iter().map(|(name, functions)| interface(name, functions)).collect();
            let audit = read(&agent(&imports));
            assert_eq!(audit.check(), Ok(()));
            audit.authority.into_iter().map(|authority| (authority.namespace, authority.because)).collect::<Vec<_>>()
        };
        let because = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let every = CONTRACT.iter().filter(|(name, _)| !matches!(*name, "types" | "calls"));
        let every =
            every.map(|(name, grants)| (*name, grants.iter().flat_map(|(_, f)| f.to_vec()).collect::<Vec<_>>()));
        let every: Vec<(&str, Vec<&str>)> = every.collect();
        let every: Vec<(&str, &[&str])> = every.iter().map(|(name, functions)| (*name, &functions[..])).collect();
        assert_eq!(
            authority(&every).into_iter().map(|(namespace, _)| namespace).collect::<Vec<_>>(),
            ["fs.read", "fs.write", "net.fetch", "tool.call", "model.use", "agent.delegate"]
        );
        let waits: [(&str, &[&str]); 5] = [
            ("net", &["finish", "head", "next"]),
            ("tool", &["list", "finish"]),
            ("model", &["list", "finish", "next"]),
            ("delegate", &["finish", "job-id", "next-event"]),
            ("calls", &["wait-any"]),
        ];
        assert_eq!(authority(&waits), []);
        assert_eq!(
            authority(&[("net", &["start-stream", "next"]), ("tool", &["list"]), ("delegate", &["start", "finish"])]),
            [("net.fetch", because(&["net.start-stream"])), ("agent.delegate", because(&["delegate.start"]))]
        );
    }

    #[test]
    fn imports_satisfied_inside_a_component_do_not_count() {
        let audit = read(&agent(
            r#"(component $inner (import "acme:backdoor/shell@1.0.0" (instance)))
               (instance $shell)
               (instance (instantiate $inner (with "acme:backdoor/shell@1.0.0" (instance $shell))))"#,
        ));
        assert_eq!(audit.check(), Ok(()));
        assert!(audit.imports.is_empty());
    }

    #[test]
    fn a_component_that_needs_what_is_switched_off_is_told_what() {
        let table = [
            (r#"(component (import "x" (func async)))"#, "component-model async"),
            ("(component (core module (memory i64 1)))", "memory64"),
            ("(component (core module (memory 1 1 shared)))", "threads"),
            ("(component (core module (type (struct))))", "gc"),
            ("(component (core module (tag)))", "exceptions"),
            ("(component (core module (table 1 externref)))", "gc"),
        ];
        for (text, expected) in table {
            let error = audit(&wat(text), AUDIT_SIZE_BYTES_MAX).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_author_cannot_flood_or_paint_the_operators_terminal() {
        assert_eq!(printable("\x1b[2Jab", 4), " [2J…");
        let many = Refused(vec![Objection::new(&"x".repeat(1000), Reason::Unknown); 1000]);
        assert!(many.to_string().len() < 5000);
        assert!(many.to_string().ends_with("; and 980 more"));
    }

    #[test]
    fn a_digest_survives_its_text_and_nothing_else_parses() {
        let digest = Digest::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!((digest.to_string().as_str(), text.parse()), (text, Ok(digest)));
        for text in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &format!("{}ü", &text[..62])] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }

    /// The table above and the contract must say the same.
    #[test]
    fn the_table_holds_every_function_of_the_contract() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
        let mut found = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let Some(interface) = text.lines().find_map(|line| line.strip_prefix("interface ")) else { continue };
            let interface = interface.trim_end_matches(" {");
            let (_, grants) = CONTRACT.iter().find(|(name, _)| *name == interface).expect(interface);
            let mut known: Vec<_> = grants.iter().flat_map(|(_, functions)| *functions).copied().collect();
            let mut resource = None;
            let mut functions: Vec<String> = Vec::new();
            for line in text.lines().map(str::trim) {
                match line.strip_prefix("resource ") {
                    Some(name) => resource = Some(name.trim_end_matches(" {")),
                    None if line == "}" => resource = None,
                    None => {}
                }
                if let Some((name, _)) = line.split_once(": func(") {
                    let name = name.trim_start_matches('%');
                    functions.push(match resource {
                        Some(resource) => format!("[method]{resource}.{name}"),
                        None => name.to_owned(),
                    });
                }
            }
            known.sort_unstable();
            functions.sort_unstable();
            assert_eq!(known, functions, "{interface}");
            found += 1;
        }
        assert_eq!(found, CONTRACT.len());
    }
}
