//! What was found, one check after another.

use anyhow::Result;
use serde::Serialize;

use crate::args::Output;
use crate::report::escape;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing to do.
    Ok,
    /// It works, but something may surprise.
    Warn,
    /// It does not work.
    Fail,
}

/// The end of one check.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// All of them: shown at once to people, and together to programs.
#[derive(Debug)]
pub(super) struct Report {
    output: Output,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            findings: Vec::new(),
        }
    }

    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) -> Result<()> {
        self.add(check, Level::Ok, found.into(), None)
    }

    pub(super) fn warn(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Result<()> {
        self.add(check, Level::Warn, found.into(), Some(advice.into()))
    }

    pub(super) fn fail(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Result<()> {
        self.add(check, Level::Fail, found.into(), Some(advice.into()))
    }

    fn add(
        &mut self,
        check: &'static str,
        level: Level,
        found: String,
        advice: Option<String>,
    ) -> Result<()> {
        if self.output == Output::Text {
            let word = match level {
                Level::Ok => "OK",
                Level::Warn => "WARN",
                Level::Fail => "FAIL",
            };
            say!("{word:<5} {check:<12} {}", escape(&found))?;
            if let Some(advice) = &advice {
                say!("{:<5} {:<12} -> {}", "", "", escape(advice))?;
            }
        }
        self.findings.push(Finding {
            check,
            level,
            found,
            advice,
        });
        Ok(())
    }

    /// The number of checks that failed.
    pub(super) fn end(self) -> Result<usize> {
        let failures = self.findings.iter().filter(|f| f.level == Level::Fail);
        let failures = failures.count();
        if self.output == Output::Json {
            let all = serde_json::json!({ "findings": self.findings, "failures": failures });
            say!("{}", serde_json::to_string_pretty(&all)?)?;
        }
        Ok(failures)
    }
}
