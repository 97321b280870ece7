//! Retention rules as people write them: `team/*=last:10,within:30d,match:v*,untagged:7d`.

use registry::RetentionRule;
use toml::de::DeValue;

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
    rule.check().map_err(|fault| fault.to_string())?;
    Ok(rule)
}

/// A `[[registry.retention]]` table as the text of a rule.
pub(crate) fn from_table(table: &DeValue<'_>) -> Result<String, String> {
    let DeValue::Table(table) = table else {
        return Err("a rule is a table".to_owned());
    };
    let mut repositories = None;
    let mut conditions = Vec::new();
    for (name, value) in table {
        let value = value.get_ref();
        let mut add = |condition: &str| -> Result<(), String> {
            for text in one_or_more(name.get_ref(), value)? {
                conditions.push(format!("{condition}:{text}"));
            }
            Ok(())
        };
        match name.get_ref().as_ref() {
            "repositories" => {
                repositories = value.as_str().map(str::to_owned);
            }
            "keep-last" => add("last")?,
            "keep-within" => add("within")?,
            "keep-matching" => add("match")?,
            "untagged-after" => add("untagged")?,
            other => {
                return Err(format!(
                    "unknown key {other}; there are repositories, keep-last, keep-within, \
                     keep-matching and untagged-after"
                ));
            }
        }
    }
    let repositories = repositories.ok_or("repositories names those that the rule is for")?;
    let text = format!("{repositories}={}", conditions.join(","));
    parse(&text).map(|_| text)
}

fn one_or_more(name: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::String(text) => Ok(vec![text.clone().into_owned()]),
        DeValue::Integer(number) => Ok(vec![number.as_str().to_owned()]),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| item.get_ref().as_str());
            let items: Option<Vec<&str>> = items.collect();
            let items = items.ok_or_else(|| format!("{name} is a list of texts"))?;
            Ok(items.into_iter().map(str::to_owned).collect())
        }
        _ => Err(format!("{name} is text or a number")),
    }
}
