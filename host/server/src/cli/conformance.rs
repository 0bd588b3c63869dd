//! `conformance`: the suite as a tool, for any runtime.

use std::time::Duration;

use clap::Args;
use console::style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leasehold_core::secret::Secret;

use super::{ClientArgs, Failure, output, secret};
use crate::conformance::{self, Address, Case, Outcome, Report, Status, Target};

/// `leasehold conformance`
#[derive(Debug, Args)]
pub struct ConformanceArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The token of a second principal, for the cases about strangers.
    #[arg(long, env = "LEASEHOLD_OTHER_TOKEN", hide_env_values = true, value_parser = secret)]
    other_token: Option<Secret>,
    /// Speak to a child process over its pipes instead of --url. A shell runs the command, anew for each connection.
    #[arg(long, value_name = "CMD")]
    stdio: Option<String>,
    /// Only the cases of this section and of those within it, such as 6 or 6.3. May be repeated.
    #[arg(long, value_name = "SECTION")]
    section: Vec<String>,
    /// Only the case of this number. May be repeated.
    #[arg(long, value_name = "NUMBER")]
    case: Vec<u16>,
    /// How many cases run at the same time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
    /// How long the runtime may take to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the chosen cases and prints how they went.
pub async fn conformance(args: ConformanceArgs) -> Result<(), Failure> {
    let address = match args.stdio {
        Some(command) => Address::Command(command),
        None => Address::url(&args.client.url).map_err(|error| Failure::Usage(format!("--url: {error}")))?,
    };
    let cases = chosen(&args.section, &args.case)?;
    let target = Target {
        address,
        token: args.client.token,
        other_token: args.other_token,
        patience: Duration::from_secs(args.timeout),
    };
    // A runtime that is not there would fail every case, and each of them in the same words.
    target.reach().await.map_err(|error| Failure::CannotConnect(format!("{error:#}")))?;
    let bar = progress(cases.len(), args.json);
    let report = conformance::run(&target, &cases, args.at_once.into(), |outcome| {
        bar.set_message(format!("{} {}", outcome.id, outcome.sentence));
        bar.inc(1);
    })
    .await;
    bar.finish_and_clear();
    if args.json {
        output::line(&report);
    } else {
        table(&report);
    }
    if report.failed == 0 { Ok(()) } else { Err(Failure::JobFailed) }
}

/// The cases of any of these sections or numbers; all of them if there are none.
fn chosen(sections: &[String], numbers: &[u16]) -> Result<Vec<&'static Case>, Failure> {
    let all = conformance::cases();
    let is_within = |case: &Case, section: &str| {
        case.section.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for section in sections {
        if !all.iter().any(|case| is_within(case, section)) {
            return Err(Failure::Usage(format!("--section: there are no cases of `{section}`")));
        }
    }
    if let Some(number) = numbers.iter().find(|number| !all.iter().any(|case| case.id == **number)) {
        return Err(Failure::Usage(format!("--case: there is no {number}, they go from 1 to {}", all.len())));
    }
    let is_chosen = |case: &Case| {
        (sections.is_empty() && numbers.is_empty())
            || numbers.contains(&case.id)
            || sections.iter().any(|section| is_within(case, section))
    };
    Ok(all.into_iter().filter(|case| is_chosen(case)).collect())
}

/// One line that says how far it is, on a terminal.
fn progress(cases: usize, as_json: bool) -> ProgressBar {
    let shown = !as_json && console::user_attended_stderr();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{pos}/{len} {bar:20} {wide_msg}").expect("the template is well-formed");
    ProgressBar::with_draw_target(Some(cases as u64), target).with_style(style)
}

/// Prints the cases by section, and the sums.
fn table(report: &Report) {
    let mut outcomes: Vec<&Outcome> = report.cases.iter().collect();
    let order = |section: &str| section.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    outcomes.sort_by_key(|outcome| (order(outcome.section), outcome.id));
    let rows = outcomes.into_iter().map(|outcome| {
        let status = match outcome.status {
            Status::Passed => style("pass").green(),
            Status::Failed => style("FAIL").red().bold(),
            Status::Skipped => style("skip").yellow(),
        };
        let said = match &outcome.why {
            Some(why) => format!("{}: {why}", outcome.sentence),
            None => outcome.sentence.to_owned(),
        };
        vec![format!("§{}", outcome.section), outcome.id.to_string(), status.to_string(), said]
    });
    output::table(&["section", "case", "", "what the runtime does, and why it does not"], rows);
    output::text_line(&format!(
        "\npassed {}, failed {}, skipped {} of {}",
        report.passed,
        report.failed,
        report.skipped,
        report.cases.len()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_holds_those_within_it_and_not_those_that_look_like_it() {
        let sections = |wanted: &str| {
            let cases = chosen(&[wanted.to_owned()], &[]).unwrap();
            cases.into_iter().map(|case| case.section).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(sections("6").contains("6.3") && !sections("6").contains("7.6"));
        assert_eq!(sections("6.3").into_iter().collect::<Vec<_>>(), ["6.3"]);
        assert!(matches!(chosen(&["1".to_owned()], &[]), Err(Failure::Usage(_)))); // and not those of 11
    }

    #[test]
    fn what_does_not_exist_is_wrong_usage() {
        assert!(matches!(chosen(&["99".to_owned()], &[]), Err(Failure::Usage(_))));
        assert!(matches!(chosen(&[], &[0]), Err(Failure::Usage(_))));
        assert_eq!(chosen(&[], &[46]).unwrap().len(), 1);
        assert_eq!(
            chosen(&["6.3".to_owned()], &[46, 1]).unwrap().len(),
            chosen(&["6.3".to_owned()], &[]).unwrap().len() + 1
        );
    }
}
