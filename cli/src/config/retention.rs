//! Retention rules as people write them: `team/*=last:10,within:30d,match:v*,untagged:7d`.

use registry::RetentionRule;

use crate::args::values::{duration, period};

/// Reads one rule.
pub(crate) fn parse(text: &str) -> Result<RetentionRule, String> {
    let (repositories, conditions) = text
        .split_once('=')
        .filter(|(repositories, _)| !repositories.trim().is_empty())
        .ok_or("write it as REPOSITORIES=last:N,within:TIME,match:GLOB,untagged:TIME")?;
    let mut rule = RetentionRule {
        repositories: repositories.trim().to_owned(),
        ..RetentionRule::default()
    };
    for condition in conditions.split(',') {
        let (name, value) = condition
            .trim()
            .split_once(':')
            .ok_or_else(|| format!("{condition:?} is not NAME:VALUE"))?;
        match name {
            "last" => {
                let count = value.parse().map_err(|_| "last:N needs a number")?;
                rule.keep_last = Some(count);
            }
            "within" => rule.keep_within = Some(period(value)?),
            "match" => rule.keep_matching.push(value.to_owned()),
            "untagged" => rule.untagged_after = Some(duration(value)?),
            other => {
                return Err(format!(
                    "{other:?} is none of last, within, match, untagged"
                ));
            }
        }
    }
    Ok(rule)
}
