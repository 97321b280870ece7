//! The keys of the configuration file: the long names of the roles' flags, in tables named like
//! the roles. A flag that every role has stands above the tables.

use std::fmt;

use clap::{Arg, ArgAction, Command};

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// Above all tables: for every role.
    Shared,
    /// For the registry and the verbs that look after its storage.
    Registry,
    /// For the node agent.
    Agent,
    /// For the runtime.
    Runtime,
}

impl Table {
    /// Tables with a name.
    pub(crate) const ROLES: [Self; 3] = [Self::Registry, Self::Agent, Self::Runtime];

    /// Its name in the file, which is the role's command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shared => "",
            Self::Registry => "registry",
            Self::Agent => "agent",
            Self::Runtime => "runtime",
        }
    }

    /// The tables whose keys a verb has flags for, beside the shared ones.
    pub(crate) fn of_verb(verb: &str) -> &'static [Self] {
        match verb {
            "serve" => &Self::ROLES,
            "registry" | "gc" | "fsck" => &[Self::Registry],
            "agent" | "pull" | "doctor" => &[Self::Agent],
            "runtime" => &[Self::Runtime],
            _ => &[],
        }
    }
}

/// One key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) table: Table,
    pub(crate) name: String,
    /// The flag that defines it.
    pub(crate) flag: Arg,
}

impl Key {
    /// Whether it takes a list.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.flag.get_action(), ArgAction::Append)
    }

    /// Whether it is on or off.
    pub(crate) fn is_switch(&self) -> bool {
        self.has_type::<bool>()
    }

    /// Whether it is a plain number.
    pub(crate) fn is_number(&self) -> bool {
        self.has_type::<usize>() || self.has_type::<u32>() || self.has_type::<u8>()
    }

    /// Whether a number cannot be meant.
    pub(crate) fn is_text(&self) -> bool {
        self.has_type::<String>() || self.has_type::<std::path::PathBuf>()
    }

    fn has_type<T: 'static>(&self) -> bool {
        self.flag.get_value_parser().type_id() == std::any::TypeId::of::<T>()
    }

    /// What stands in help texts where a value would.
    pub(crate) fn form(&self) -> String {
        let names = self.flag.get_value_names().unwrap_or_default();
        names.first().map_or_else(String::new, ToString::to_string)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            Table::Shared => formatter.write_str(&self.name),
            table => write!(formatter, "{}.{}", table.name(), self.name),
        }
    }
}

/// All keys, in the order of the help texts.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// The keys that the roles' commands define.
    pub(crate) fn of(command: &Command) -> Self {
        let serve: Vec<&str> = flags(command, "serve").map(|(name, _)| name).collect();
        let is_shared = |name: &str| {
            let roles = Table::ROLES.iter();
            let mut others = roles.map(|role| flags(command, role.name()));
            serve.contains(&name) && others.all(|mut role| role.any(|(other, _)| other == name))
        };
        let mut keys: Vec<Key> = Vec::new();
        for role in Table::ROLES {
            for (name, flag) in flags(command, role.name()) {
                let table = if is_shared(name) { Table::Shared } else { role };
                if keys
                    .iter()
                    .any(|key| key.table == table && key.name == name)
                {
                    continue;
                }
                keys.push(Key {
                    table,
                    name: name.to_owned(),
                    flag: flag.clone(),
                });
            }
        }
        keys.sort_by_key(|key| key.table);
        Self(keys)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Key> {
        self.0.iter()
    }

    pub(crate) fn find(&self, table: Table, name: &str) -> Option<&Key> {
        self.iter()
            .find(|key| key.table == table && key.name == name)
    }

    /// The key that a flag of a verb stands for: `--listen` of `registry` and `--registry-listen`
    /// of `serve` are both `registry.listen`.
    pub(crate) fn of_flag(&self, verb: &str, flag: &Arg) -> Option<&Key> {
        let name = flag.get_long()?;
        if let Some(shared) = self.find(Table::Shared, name) {
            return Some(shared);
        }
        Table::of_verb(verb).iter().find_map(|&table| {
            let in_serve = name
                .strip_prefix(table.name())
                .and_then(|rest| rest.strip_prefix('-'))
                .and_then(|rest| self.find(table, rest));
            self.find(table, name).or(in_serve)
        })
    }
}

/// The flags of a command that may stand in a file.
fn flags<'a>(command: &'a Command, verb: &str) -> impl Iterator<Item = (&'a str, &'a Arg)> {
    let found = command.find_subcommand(verb);
    found
        .into_iter()
        .flat_map(Command::get_arguments)
        .filter_map(|flag| Some((flag.get_long()?, flag)))
        .filter(|(name, _)| !["config", "help", "version"].contains(name))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use clap::CommandFactory;

    use crate::args::Cli;
    use crate::config::keys::{Keys, Table};

    #[test]
    fn every_flag_of_serve_is_one_key_and_every_key_has_its_variable() {
        let command = Cli::command();
        let keys = Keys::of(&command);
        let serve = command.find_subcommand("serve").unwrap();
        for flag in serve.get_arguments() {
            let name = flag.get_long().unwrap();
            if name != "config" {
                assert!(keys.of_flag("serve", flag).is_some(), "{name}");
            }
        }
        for key in keys.iter() {
            let variable = key.flag.get_env().map(|name| name.to_str().unwrap());
            let own = key.name.to_uppercase().replace('-', "_");
            let expected = match key.name.as_str() {
                "upstream" if key.table == Table::Agent => "HAYLOFT_AGENT_UPSTREAM".to_owned(),
                "listen" => format!("HAYLOFT_{}_LISTEN", key.table.name().to_uppercase()),
                _ => format!("HAYLOFT_{own}"),
            };
            let is_foreign = variable
                .is_some_and(|name| name.starts_with("OLLAMA_") || name.starts_with("OTEL_"));
            assert!(
                is_foreign || variable == Some(&expected),
                "{key}: {variable:?}"
            );
        }
    }

    #[test]
    fn what_every_role_has_stands_above_the_tables() {
        let keys = Keys::of(&Cli::command());
        assert!(keys.find(Table::Shared, "data").is_some());
        assert!(keys.find(Table::Registry, "data").is_none());
        assert!(keys.find(Table::Registry, "listen").is_some());
        assert!(keys.find(Table::Runtime, "keep-alive").is_some());
    }
}
