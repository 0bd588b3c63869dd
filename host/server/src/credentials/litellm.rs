//! LiteLLM's virtual keys, by its key API over HTTP.
//!
//! A key gets the credential's id as its alias, by which it is deleted, so its
//! value need not be kept. LiteLLM's own patterns of models reach further than
//! a lease's (its `*` crosses `/`) and an empty list of models means all of
//! them. So a key gets the names of the models that the lease covers, one by
//! one, and if it covers none there is no key.
//!
//! What a key has spent it writes down some seconds after a call, so what is
//! read of it is what it knows, and the newest calls may be missing.

use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::{
    lease::{
        amount::{Budget, Decimal},
        target::{ModelName, Target},
    },
    secret::Secret,
    time::Timestamp,
};
use reqwest::{Client, Method, StatusCode, Url, header::AUTHORIZATION};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::timeout;

use super::{Constraints, Issued, JobFacts, ProvisionError, Provisioner, settings::LitellmEntry};
use crate::capability::models::upstream::{bearer, client, endpoint};

/// A LiteLLM proxy.
pub struct Litellm {
    client: Client,
    admin_key: reqwest::header::HeaderValue,
    generate: Url,
    delete: Url,
    list: Url,
    update: Url,
    models: Url,
    entry: LitellmEntry,
    endpoint: String,
}

impl Litellm {
    /// Takes the settings, and reads the key that may make keys.
    ///
    /// # Errors
    ///
    /// The key of the setting that cannot be used, and why.
    pub fn new(entry: &LitellmEntry) -> Result<Self, String> {
        let address = |path: &str| endpoint(&entry.url, path).map_err(|what| format!("url: {what}"));
        let key = entry.admin_key.read().map_err(|what| format!("admin_key: {what}"))?;
        if entry.timeout_sec == 0 || entry.lifetime_sec_max == 0 {
            return Err("timeout_sec and lifetime_sec_max must be at least 1".to_owned());
        }
        Ok(Self {
            client: client()?,
            admin_key: bearer(&key).ok_or("admin_key: no header can hold it")?,
            generate: address("key/generate")?,
            delete: address("key/delete")?,
            list: address("key/list")?,
            update: address("key/update")?,
            models: address("v1/models")?,
            endpoint: match &entry.endpoint {
                Some(endpoint) => endpoint.clone(),
                None => address("v1")?.to_string(),
            },
            entry: entry.clone(),
        })
    }

    /// Sends a request, and gives the status and the body of the answer.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        body: Option<String>,
    ) -> Result<(StatusCode, String), ProvisionError> {
        let mut request = self.client.request(method, url.clone()).header(AUTHORIZATION, self.admin_key.clone());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let ask = async {
            let unreachable = |_| ProvisionError::Unreachable("the connection failed".to_owned());
            let mut response = request.send().await.map_err(unreachable)?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > self.entry.answer_bytes_max {
                    return Err(ProvisionError::Broken("it is too large".to_owned()));
                }
            }
            let text = String::from_utf8(bytes).map_err(|_| ProvisionError::Broken("it is not a text".to_owned()))?;
            Ok((response.status(), text))
        };
        let answer = timeout(Duration::from_secs(self.entry.timeout_sec.into()), ask).await;
        answer.unwrap_or_else(|_| Err(ProvisionError::Unreachable("no answer in time".to_owned())))
    }

    /// What it knows of a key, if it has it.
    async fn known(&self, id: &str) -> Result<Option<Known>, ProvisionError> {
        #[derive(Deserialize)]
        struct List {
            keys: Vec<Known>,
        }
        let mut url = self.list.clone();
        url.query_pairs_mut().extend_pairs([("key_alias", id), ("return_full_object", "true")]);
        let (status, text) = self.ask(Method::GET, &url, None).await?;
        if !status.is_success() {
            return Err(refused(status));
        }
        let list: List =
            serde_json::from_str(&text).map_err(|_| ProvisionError::Broken("no list of keys".to_owned()))?;
        // Some of its versions look for a part of the alias.
        Ok(list.keys.into_iter().find(|key| key.key_alias.as_deref() == Some(id)))
    }

    /// The names of the models there that the lease covers.
    async fn covered(&self, facts: &JobFacts) -> Result<Vec<String>, ProvisionError> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            id: String,
        }
        let (status, text) = self.ask(Method::GET, &self.models, None).await?;
        if !status.is_success() {
            return Err(refused(status));
        }
        let list: List =
            serde_json::from_str(&text).map_err(|_| ProvisionError::Broken("no list of models".to_owned()))?;
        let covers = |id: &str| {
            let name = ModelName::parse(id).ok();
            name.is_some_and(|name| facts.models.iter().any(|pattern| pattern.matches(Target::Model(&name))))
        };
        let names = list.data.into_iter().map(|entry| entry.id);
        Ok(names.filter(|id| !id.contains('*') && !GROUPS.contains(&id.as_str()) && covers(id)).collect())
    }
}

#[async_trait]
impl Provisioner for Litellm {
    async fn issue(&self, now: Timestamp, id: &str, facts: &JobFacts) -> Result<Issued, ProvisionError> {
        let unbounded = |what: String| Err(ProvisionError::Unbounded(what));
        if let Some(other) = facts.budget.keys().find(|currency| **currency != self.entry.currency) {
            return unbounded(format!("its budgets are in {}, not in {other}", self.entry.currency));
        }
        let lifetime = Duration::from_secs(self.entry.lifetime_sec_max.into());
        let latest = now.saturating_add(lifetime);
        let expires_at = facts.expires_at.unwrap_or(latest).min(latest);
        let seconds = expires_at.as_millis().saturating_sub(now.as_millis()) / 1000;
        if seconds == 0 {
            return unbounded("the lease ends within a second".to_owned());
        }
        let models = self.covered(facts).await?;
        if models.is_empty() {
            return unbounded("it has no model that the lease covers".to_owned());
        }
        let mut body = json!({
            "key_alias": id,
            "key_type": "llm_api",
            "models": models,
            "duration": format!("{seconds}s"),
            "metadata": { "job_id": facts.job_id.to_string(), "principal": facts.principal.to_string() },
        });
        let budget = facts.budget.get(&self.entry.currency);
        if let Some(budget) = budget {
            body["max_budget"] = number(&budget.to_string())?;
        }
        let (status, text) = self.ask(Method::POST, &self.generate, Some(body.to_string())).await?;
        if !status.is_success() {
            return Err(refused(status));
        }
        #[derive(Deserialize)]
        struct Generated {
            key: Secret,
        }
        // The library's error might quote the key.
        let generated: Generated =
            serde_json::from_str(&text).map_err(|_| ProvisionError::Broken("it holds no key".to_owned()))?;
        let cost_budget = budget.map(|budget| format!("{}:{budget}", self.entry.currency)).into_iter().collect();
        Ok(Issued {
            scheme: "bearer".to_owned(),
            value: generated.key,
            endpoint: self.endpoint.clone(),
            profile: Some("openai".to_owned()),
            constraints: Constraints { cost_budget, model_use: models, expires_at: Some(expires_at) },
        })
    }

    async fn revoke(&self, id: &str) -> Result<(), ProvisionError> {
        let body = json!({ "key_aliases": [id] }).to_string();
        let (status, text) = self.ask(Method::POST, &self.delete, Some(body)).await?;
        // What is not there is worth nothing; but a 404 of something else that answers at the address proves nothing.
        let gone = status == StatusCode::NOT_FOUND && serde_json::from_str::<&RawValue>(&text).is_ok();
        if status.is_success() || gone { Ok(()) } else { Err(refused(status)) }
    }

    async fn spent(&self, id: &str) -> Result<Option<Budget>, ProvisionError> {
        let Some(key) = self.known(id).await? else { return Ok(None) };
        // It counts in floats, of which no digit is to be trusted beyond those of money.
        let spent = format!("{:.9}", key.spend).parse::<Decimal>().ok().filter(|spent| *spent >= Decimal::ZERO);
        Ok(spent.map(|spent| [(self.entry.currency.clone(), spent.normalize())].into()))
    }

    async fn bound(&self, id: &str, budget: &Budget) -> Result<(), ProvisionError> {
        let key = self.known(id).await?.ok_or_else(|| ProvisionError::Refused("it has no such key".to_owned()))?;
        let budget = budget.get(&self.entry.currency).copied().unwrap_or_default();
        let body = json!({ "key": key.token, "max_budget": number(&budget.to_string())? });
        let (status, _) = self.ask(Method::POST, &self.update, Some(body.to_string())).await?;
        if status.is_success() { Ok(()) } else { Err(refused(status)) }
    }
}

/// A key as LiteLLM lists it.
#[derive(Deserialize)]
struct Known {
    /// The digest that it knows the key by.
    token: String,
    key_alias: Option<String>,
    spend: f64,
}

/// What LiteLLM says of it may quote a key, so the status has to do.
fn refused(status: StatusCode) -> ProvisionError {
    let what = format!("status {}", status.as_u16());
    match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        true => ProvisionError::Unreachable(what),
        false => ProvisionError::Refused(what),
    }
}

/// A decimal as a number of JSON; LiteLLM counts in floats.
fn number(decimal: &str) -> Result<Value, ProvisionError> {
    serde_json::from_str(decimal).map_err(|_| ProvisionError::Unbounded("the budget is no number there".to_owned()))
}

/// Names that stand for many models there.
const GROUPS: [&str; 3] = ["all-proxy-models", "all-team-models", "no-default-models"];
