//! `model.use` against real HTTP servers: the host's own client of an upstream, its gateway, and the keys of others.

mod client;
mod gateway;
mod keys;

use std::collections::BTreeMap;

use leasehold::capability::models::{
    Models,
    settings::{ModelEntry, UpstreamEntry},
};
use leasehold_core::{
    lease::{
        Authority, Lease,
        amount::Budget,
        gate::{Gate, Permit},
        operation::UseModel,
    },
    time::Timestamp,
};
use leasehold_tests::upstream::Upstream;

/// The key of the upstream, which nothing may show.
const KEY: &str = "sk-upstream-0123456789";

/// The models of a configuration; `UPSTREAM` in it stands for the address of `upstream`.
fn models(upstream: &Upstream, upstream_settings: &str, model_settings: &str) -> Models {
    try_models(upstream, upstream_settings, model_settings).unwrap()
}

fn try_models(upstream: &Upstream, upstream_settings: &str, model_settings: &str) -> Result<Models, String> {
    #[derive(serde::Deserialize)]
    struct Settings {
        upstreams: BTreeMap<String, UpstreamEntry>,
        models: BTreeMap<String, ModelEntry>,
    }
    let text = format!(
        "[upstreams.main]\nurl = \"{}/v1\"\nkey = \"{KEY}\"\n{upstream_settings}\n[models.\"tier-fast/small\"]\n\
         upstream = \"main\"\nmodel = \"gpt-small\"\naliases = [\"fast\"]\ninput_per_mtok = \"USD:1\"\n\
         output_per_mtok = \"USD:10\"\n{model_settings}\n",
        upstream.url()
    );
    let settings: Settings = toml::from_str(&text).unwrap();
    Models::new(&settings.upstreams, &settings.models)
}

fn gate(patterns: &[&str]) -> Gate {
    let patterns = patterns.iter().map(ToString::to_string).collect();
    let lease = Lease::parse(&BTreeMap::from([("model.use".to_owned(), patterns)])).unwrap();
    Gate::new(Authority { lease, expires_at: None })
}

fn permit(models: &Models, asked: &str) -> Permit<UseModel> {
    gate(&["**"]).permit(Timestamp::from_millis(0), models.operation(asked).unwrap()).unwrap()
}

/// Money as people write it.
fn shown(budget: &Budget) -> String {
    let amounts: Vec<String> =
        budget.iter().map(|(currency, value)| format!("{currency}:{}", value.normalize())).collect();
    amounts.join(" ")
}
