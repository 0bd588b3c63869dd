//! Where an operator keeps what nobody else may read: tokens, keys of upstreams, headers that an agent never sees.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use leasehold_core::secret::Secret;
use serde::Deserialize;

/// Where a secret comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Written")]
pub enum SecretSource {
    /// It stands in the file.
    Text(Secret),
    /// It is the content of another file.
    File(PathBuf),
    /// It is in the environment.
    Env(String),
    /// The table names no source, or more than one.
    Unclear,
}

/// A secret as it is written: a text, or a table that says where it is.
struct Written(SecretSource);

impl From<Written> for SecretSource {
    fn from(text: Written) -> Self {
        text.0
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            file: Option<PathBuf>,
            env: Option<String>,
        }

        struct Either;

        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Written;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, or a table with `file` or `env`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written(SecretSource::Text(Secret::new(text))))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                let table = Table::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Written(match (table.file, table.env) {
                    (Some(file), None) => SecretSource::File(file),
                    (None, Some(name)) => SecretSource::Env(name),
                    _ => SecretSource::Unclear,
                }))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl SecretSource {
    /// Makes a relative path of it relative to `base`.
    pub fn settle(&mut self, base: &Path) {
        if let Self::File(path) = self {
            *path = base.join(&*path);
        }
    }

    /// Reads it, without what blank there is around it.
    ///
    /// # Errors
    ///
    /// If it cannot be found or is empty; the text says which, and never what it is.
    pub fn read(&self) -> Result<Secret, String> {
        let secret = match self {
            Self::Text(secret) => secret.clone(),
            Self::File(path) => {
                let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Secret::new(text.trim())
            }
            Self::Env(variable) => {
                let text = env::var(variable).map_err(|_| format!("the environment has no `{variable}`"))?;
                Secret::new(text.trim())
            }
            Self::Unclear => return Err("name one of `file` and `env`".into()),
        };
        if secret.expose().is_empty() { Err("it is empty".into()) } else { Ok(secret) }
    }
}

/// What to look for in the words of somebody who was told these values: all of it that has at least `bytes_min` bytes,
/// the longest first, as nothing is to stay of a value that has another inside.
///
/// Whoever repeats a value may leave out the scheme before it, give one line of it, or have it stand in a JSON text.
pub(crate) fn spellings<'a>(values: impl IntoIterator<Item = &'a str>, bytes_min: usize) -> Vec<String> {
    let mut spellings: Vec<String> = Vec::new();
    for value in values {
        let last_word = value.rsplit(' ').next().unwrap_or_default();
        for text in value.lines().map(str::trim).chain([value, last_word]) {
            let in_json = serde_json::Value::from(text).to_string();
            spellings.extend([text, &in_json[1..in_json.len() - 1]].map(str::to_owned));
        }
    }
    spellings.retain(|spelling| spelling.len() >= bytes_min);
    spellings.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    spellings.dedup();
    spellings
}
