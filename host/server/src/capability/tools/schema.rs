//! A tool's JSON Schema: what it takes, checked before the call, at a cost that is known before the check.
//!
//! The schema comes from a server and the arguments from an agent, and neither
//! may keep the host busy. No reference leads out of the schema, patterns are
//! matched by an engine without backtracking, and the number of steps that a
//! check can take is computed first: a schema that offers two ways to read each
//! level takes 2^n steps for arguments that are n deep, and such a pair is
//! refused instead of tried.

use std::collections::BTreeMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

/// The largest schema, as text.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// How deeply arguments may nest.
pub const DEPTH_MAX: usize = 64;

/// The steps that one check may take: about a tenth of a second.
const STEPS_MAX: u64 = 4_000_000;

/// How deeply a check may recurse, which bounds its stack.
const FRAMES_MAX: u64 = 512;

/// What a compiled pattern may take of memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A schema that can be asked.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// What a check takes of one value that is so deep, from 0 to [`DEPTH_MAX`].
    effort: Vec<Effort>,
}

/// Why a value does not fit a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where, as a JSON pointer; empty for the whole.
    pub pointer: String,
    /// What is wrong there. It quotes the schema and never the value.
    pub reason: String,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    ///
    /// If it is too large, is no schema, refers to something outside of it, or to itself without end.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let bytes = schema.to_string().len();
        if bytes > SCHEMA_BYTES_MAX {
            return Err(format!("it has {bytes} bytes, and {SCHEMA_BYTES_MAX} are the most"));
        }
        let graph = Graph::read(schema)?;
        let effort = graph.effort();
        if effort[0].frames > FRAMES_MAX {
            return Err("it refers to itself without end".into());
        }
        let pattern = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(pattern)
            .build(schema)
            .map_err(|error| cut(&error.masked().to_string()))?;
        Ok(Self { validator, effort })
    }

    /// Checks a value.
    ///
    /// # Errors
    ///
    /// If it does not fit, or checking it would take too long.
    pub fn check(&self, value: &Value) -> Result<(), Mismatch> {
        let whole = |reason: String| Mismatch { pointer: String::new(), reason };
        let (depth, count) = extent(value);
        let Some(effort) = self.effort.get(depth) else {
            return Err(whole(format!("nested deeper than {DEPTH_MAX} levels")));
        };
        if effort.frames > FRAMES_MAX || effort.steps.saturating_mul(count) > STEPS_MAX {
            return Err(whole("too large or too deeply nested to be checked against this tool's schema".into()));
        }
        self.validator.validate(value).map_err(|error| Mismatch {
            pointer: cut(error.instance_path().as_str()),
            reason: cut(&error.masked().to_string()),
        })
    }
}

/// How deep a value is, and of how many values it consists.
fn extent(value: &Value) -> (usize, u64) {
    let inner = |values: &mut dyn Iterator<Item = &Value>| {
        let (depth, count) = values.map(extent).fold((0, 1), |(d, c), (depth, count)| (d.max(depth), c + count));
        (depth + 1, count)
    };
    match value {
        Value::Array(values) => inner(&mut values.iter()),
        Value::Object(map) => inner(&mut map.values()),
        _ => (0, 1),
    }
}

/// Cuts what a schema says for a message.
fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What checking one value may take at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Effort {
    /// How often any one value in it is looked at.
    steps: u64,
    /// How deeply the check recurses.
    frames: u64,
}

const ENDLESS: Effort = Effort { steps: u64::MAX, frames: u64::MAX };

/// One subschema, by the others it asks.
#[derive(Default)]
struct Node {
    /// They are asked about the same value.
    same: Vec<usize>,
    /// They may all be asked about one value inside of it.
    inside: Vec<usize>,
    /// One of them at the most is asked about a value inside of it, by its name or place.
    named: Vec<usize>,
}

/// The keywords whose subschemas look at the same value: themselves, and in a list or map.
const SAME: [&str; 4] = ["not", "if", "then", "else"];
const SAME_MANY: [&str; 5] = ["allOf", "anyOf", "oneOf", "dependentSchemas", "dependencies"];
/// The keywords whose subschemas look at values inside of it.
const INSIDE: [&str; 8] = [
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "contentSchema",
];
const INSIDE_MANY: [&str; 1] = ["patternProperties"];
/// The keywords of which a value inside has one.
const NAMED: [&str; 3] = ["properties", "prefixItems", "items"];

/// Which subschema asks which others; the root is node 0.
struct Graph<'a> {
    root: &'a Value,
    nodes: Vec<Node>,
    /// The nodes by their JSON pointers.
    known: BTreeMap<String, usize>,
    /// The nodes that are still to be read. A list, since a chain of references may be longer than any stack.
    unread: Vec<(usize, &'a Value, String)>,
}

impl<'a> Graph<'a> {
    fn read(root: &'a Value) -> Result<Self, String> {
        let mut graph = Self { root, nodes: Vec::new(), known: BTreeMap::new(), unread: Vec::new() };
        graph.node(root, String::new());
        while let Some((index, schema, pointer)) = graph.unread.pop() {
            graph.nodes[index] = graph.subschemas(schema, &pointer)?;
        }
        Ok(graph)
    }

    /// The node of the subschema at `pointer`.
    fn node(&mut self, schema: &'a Value, pointer: String) -> usize {
        if let Some(index) = self.known.get(&pointer) {
            return *index;
        }
        let index = self.nodes.len();
        self.nodes.push(Node::default());
        self.known.insert(pointer.clone(), index);
        self.unread.push((index, schema, pointer));
        index
    }

    fn subschemas(&mut self, schema: &'a Value, pointer: &str) -> Result<Node, String> {
        let mut node = Node::default();
        let Value::Object(map) = schema else { return Ok(node) };
        // The name of the whole changes nothing, as no reference goes by it.
        if !pointer.is_empty() && map.get("$id").or(map.get("id")).is_some_and(Value::is_string) {
            return Err("a part of it has an `$id` of its own, which references would be relative to".into());
        }
        self.single(map, pointer, &SAME, &mut node.same);
        self.many(map, pointer, &SAME_MANY, &mut node.same);
        node.same.extend(self.reference(map)?);
        self.single(map, pointer, &INSIDE, &mut node.inside);
        self.many(map, pointer, &INSIDE_MANY, &mut node.inside);
        self.many(map, pointer, &NAMED, &mut node.named);
        Ok(node)
    }

    /// The node that a schema refers to.
    fn reference(&mut self, map: &'a Map<String, Value>) -> Result<Option<usize>, String> {
        if let Some(keyword) = ["$dynamicRef", "$recursiveRef"].into_iter().find(|keyword| map.contains_key(*keyword)) {
            return Err(format!("it uses `{keyword}`, and only `$ref` is followed"));
        }
        let Some(Value::String(reference)) = map.get("$ref") else { return Ok(None) };
        let outside = || format!("it refers to `{}`, and only `#/…` is followed", cut(reference));
        let target = reference.strip_prefix('#').and_then(percent_decoded).ok_or_else(outside)?;
        if !target.is_empty() && !target.starts_with('/') {
            return Err(outside());
        }
        let missing = || format!("it refers to `{}`, which it does not have", cut(reference));
        let schema = self.root.pointer(&target).ok_or_else(missing)?;
        Ok(Some(self.node(schema, target)))
    }

    /// Adds the subschemas that are the values of `keywords`.
    fn single(&mut self, map: &'a Map<String, Value>, pointer: &str, keywords: &[&str], found: &mut Vec<usize>) {
        for keyword in keywords {
            if let Some(schema @ Value::Object(_)) = map.get(*keyword) {
                found.push(self.node(schema, format!("{pointer}/{keyword}")));
            }
        }
    }

    /// Adds the subschemas in the lists or maps that are the values of `keywords`.
    fn many(&mut self, map: &'a Map<String, Value>, pointer: &str, keywords: &[&str], found: &mut Vec<usize>) {
        for keyword in keywords {
            match map.get(*keyword) {
                Some(Value::Array(schemas)) => {
                    for (at, schema) in schemas.iter().enumerate() {
                        found.push(self.node(schema, format!("{pointer}/{keyword}/{at}")));
                    }
                }
                // `items` is a list of schemas or one schema, and never a map of them.
                Some(Value::Object(schemas)) if *keyword != "items" => {
                    for (name, schema) in schemas {
                        let name = name.replace('~', "~0").replace('/', "~1");
                        found.push(self.node(schema, format!("{pointer}/{keyword}/{name}")));
                    }
                }
                _ => {}
            }
        }
    }

    /// What checking the root takes, for values of every depth up to [`DEPTH_MAX`].
    fn effort(&self) -> Vec<Effort> {
        let mut all = Vec::with_capacity(DEPTH_MAX + 1);
        let mut shallower = vec![Effort { steps: 0, frames: 0 }; self.nodes.len()];
        for _ in 0..=DEPTH_MAX {
            let mut efforts = vec![None; self.nodes.len()];
            self.effort_of(0, &shallower, &mut efforts, 0);
            // What the root does not reach now, a reference inside may reach a level deeper.
            for index in 0..self.nodes.len() {
                self.effort_of(index, &shallower, &mut efforts, 0);
            }
            shallower = efforts.into_iter().map(|effort| effort.unwrap_or(ENDLESS)).collect();
            all.push(shallower.first().copied().unwrap_or(ENDLESS));
        }
        all
    }

    fn effort_of(&self, index: usize, shallower: &[Effort], known: &mut [Option<Effort>], frames: u64) -> Effort {
        if let Some(effort) = known[index] {
            return effort;
        }
        // Stands until the real one is known, so whoever comes back here has gone in a circle.
        known[index] = Some(ENDLESS);
        if frames > FRAMES_MAX {
            return ENDLESS;
        }
        let node = &self.nodes[index];
        let mut effort = Effort { steps: 1, frames: 0 };
        for same in &node.same {
            let part = self.effort_of(*same, shallower, known, frames + 1);
            effort.steps = effort.steps.saturating_add(part.steps);
            effort.frames = effort.frames.max(part.frames);
        }
        for inside in &node.inside {
            effort.steps = effort.steps.saturating_add(shallower[*inside].steps);
            effort.frames = effort.frames.max(shallower[*inside].frames);
        }
        let named = node.named.iter().map(|named| shallower[*named]);
        effort.steps = effort.steps.saturating_add(named.clone().map(|part| part.steps).max().unwrap_or(0));
        effort.frames = effort.frames.max(named.map(|part| part.frames).max().unwrap_or(0)).saturating_add(1);
        known[index] = Some(effort);
        effort
    }
}

/// Decodes the percent-encoding of a fragment.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_told_where_and_why_and_without_the_value() {
        let schema = Schema::compile(&json!({
            "type": "object",
            "properties": {
                "city": { "type": "string", "maxLength": 8 },
                "days": { "type": "array", "items": { "$ref": "#/$defs/day" } },
                "a/b~": { "type": "null" },
            },
            "required": ["city"],
            "additionalProperties": false,
            "$defs": { "day": { "type": "integer", "minimum": 1 } },
        }))
        .unwrap();
        let table = [
            (json!({ "city": "Ulm" }), None, ""),
            (json!({ "city": "Ulm", "days": [1, 2] }), None, ""),
            (json!({}), Some(""), "\"city\" is a required property"),
            (json!([]), Some(""), "not of type \"object\""),
            (json!({ "city": 7 }), Some("/city"), "not of type \"string\""),
            (json!({ "city": "tk-secret-in-here" }), Some("/city"), "longer than 8 characters"),
            (json!({ "city": "Ulm", "days": [1, 0] }), Some("/days/1"), "less than the minimum of 1"),
            (json!({ "city": "Ulm", "a/b~": 1 }), Some("/a~1b~0"), "not of type \"null\""),
        ];
        for (value, pointer, reason) in table {
            match (schema.check(&value), pointer) {
                (Ok(()), None) => {}
                (Err(mismatch), Some(pointer)) => {
                    assert_eq!(mismatch.pointer, pointer, "{value}");
                    assert!(mismatch.reason.contains(reason), "{value}: {}", mismatch.reason);
                    assert!(!mismatch.reason.contains("tk-secret"), "{}", mismatch.reason);
                }
                (outcome, _) => panic!("{value}: {outcome:?}"),
            }
        }
    }

    fn chain(length: usize) -> Value {
        let link = |n| (format!("d{n}"), json!({ "$ref": format!("#/$defs/d{}", n + 1) }));
        let last = (format!("d{length}"), json!({}));
        let links: Map<String, Value> = (0..length).map(link).chain([last]).collect();
        json!({ "$ref": "#/$defs/d0", "$defs": links })
    }

    #[test]
    fn a_schema_that_leads_outside_or_nowhere_or_round_in_circles_is_refused() {
        for (schema, said) in [
            (json!({ "$ref": "https://example.com/schema.json" }), "only `#/…`"),
            (json!({ "$ref": "file:///etc/passwd" }), "only `#/…`"),
            (json!({ "$ref": "other.json#/a" }), "only `#/…`"),
            (json!({ "$ref": "#anchor" }), "only `#/…`"),
            (json!({ "$ref": "#/$defs/none" }), "does not have"),
            (json!({ "$dynamicRef": "#node" }), "$dynamicRef"),
            (json!({ "$ref": "#" }), "without end"),
            (json!({ "anyOf": [{ "$ref": "#" }] }), "without end"),
            (json!({ "$ref": "#/$defs/a", "$defs": { "a": { "not": { "$ref": "#/$defs/a" } } } }), "without end"),
            (chain(5_000), "without end"),
            (json!({ "properties": { "a": { "$id": "https://example.com/a", "$ref": "#/b" } } }), "$id"),
            (json!({ "type": "strin" }), "not valid"),
            (json!({ "pattern": "(" }), ""),
            (json!({ "pattern": "(a)\\1" }), ""),             // needs backtracking
            (json!({ "pattern": "(?=a)b" }), ""),             // needs backtracking
            (json!({ "pattern": "((a{999}){999}){9}" }), ""), // compiles to gigabytes
            (json!({ "description": "x".repeat(SCHEMA_BYTES_MAX) }), "are the most"),
        ] {
            let error = Schema::compile(&schema).expect_err(&cut(&schema.to_string()));
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_a_check_would_cost_is_known_before_it_begins() {
        // Each level can be read in two ways, so n levels take 2^n steps.
        let doubling = json!({
            "anyOf": [
                { "required": ["x"], "properties": { "a": { "$ref": "#" } } },
                { "required": ["y"], "properties": { "a": { "$ref": "#" } } },
            ],
        });
        let schema = Schema::compile(&doubling).unwrap();
        let nested = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(schema.check(&nested(8)).unwrap_err().reason.contains("anyOf"));
        assert!(schema.check(&nested(40)).unwrap_err().reason.contains("too large or too deeply nested"));

        // A recursive schema that reads each level once is none of that.
        let tree = json!({
            "type": "object",
            "properties": { "name": { "type": "string" }, "children": { "type": "array", "items": { "$ref": "#" } } },
        });
        let schema = Schema::compile(&tree).unwrap();
        let nested = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({ "children": [inner] }));
        assert_eq!(schema.check(&nested(30)), Ok(()));
        assert!(schema.check(&nested(33)).unwrap_err().reason.contains("deeper than 64"));

        // A pattern that backtracking engines choke on.
        let schema = Schema::compile(&json!({ "pattern": "^(a+)+$" })).unwrap();
        assert!(schema.check(&json!("a".repeat(100_000) + "!")).is_err());
    }

    #[test]
    fn the_schemas_of_common_generators_are_taken() {
        for schema in [
            json!(true),
            json!({}),
            chain(500),
            json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/tool" }),
            json!({ "$schema": "http://json-schema.org/draft-07/schema#", "definitions": { "a": {} },
                    "items": [{ "$ref": "#/definitions/a" }] }),
            json!({ "type": "object", "properties": { "$id": { "type": "string" }, "$ref": { "type": "string" } } }),
        ] {
            assert!(Schema::compile(&schema).is_ok(), "{schema}: {:?}", Schema::compile(&schema).err());
        }
    }
}
