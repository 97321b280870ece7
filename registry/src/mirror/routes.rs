//! Routes: which upstreams a repository is mirrored from, by the prefix of its name.

use std::sync::Arc;

use artifact::Repository;

use crate::config;
use crate::mirror::upstream::Upstream;

/// A prefix and its upstreams, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) prefix: Repository,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
}

impl Route {
    /// The name of a mirrored repository at the upstreams: what follows the prefix.
    pub(crate) fn name_at_upstream<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (prefix, rest) = name.split_at_checked(self.prefix.as_str().len())?;
        let rest = rest.strip_prefix('/')?;
        prefix
            .eq_ignore_ascii_case(self.prefix.as_str())
            .then_some(rest)
    }

    /// The upstreams that may be asked now: those that have not failed lately, in their order; if
    /// there are none, all of them, since one that may be back is better than none.
    pub(crate) fn in_turn(&self) -> Vec<Arc<Upstream>> {
        let rested = self.upstreams.iter().filter(|up| up.pause().is_zero());
        let rested: Vec<_> = rested.cloned().collect();
        if rested.is_empty() {
            return self.upstreams.clone();
        }
        rested
    }

    /// Whether every upstream failed lately, so that asking is hardly worth it.
    pub(crate) fn is_resting(&self) -> bool {
        self.upstreams.iter().all(|up| !up.pause().is_zero())
    }
}

/// All routes.
#[derive(Debug, Default)]
pub(crate) struct Routes(Vec<Arc<Route>>);

impl Routes {
    /// One for each prefix, with its upstreams in the order of the configuration.
    pub(crate) fn new(upstreams: &[config::Upstream]) -> Self {
        let mut routes: Vec<Route> = Vec::new();
        for upstream in upstreams {
            let address = Arc::new(Upstream::new(upstream.at.clone()));
            match routes.iter_mut().find(|it| it.prefix == upstream.prefix) {
                Some(route) => route.upstreams.push(address),
                None => routes.push(Route {
                    prefix: upstream.prefix.clone(),
                    upstreams: vec![address],
                }),
            }
        }
        Self(routes.into_iter().map(Arc::new).collect())
    }

    /// The route of a repository: the one with the longest prefix of its name.
    pub(crate) fn of(&self, repository: &Repository) -> Option<&Arc<Route>> {
        let routes = self.0.iter();
        let matching = routes.filter(|it| it.name_at_upstream(repository.as_str()).is_some());
        matching.max_by_key(|route| route.prefix.as_str().len())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Arc<Route>> {
        self.0.iter()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::Repository;

    use crate::config;
    use crate::mirror::routes::Routes;

    fn routes(prefixes: &[&str]) -> Routes {
        let upstreams = prefixes.iter().map(|prefix| config::Upstream {
            prefix: Repository::parse(prefix).unwrap(),
            at: "oci+https://registry.example".parse().unwrap(),
        });
        Routes::new(&upstreams.collect::<Vec<_>>())
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_decides() {
        let routes = routes(&["hub", "hub/team", "hub"]);
        let found = |name: &str| {
            let route = routes.of(&Repository::parse(name).unwrap())?;
            let rest = route.name_at_upstream(name).unwrap().to_owned();
            Some((route.prefix.as_str().to_owned(), rest))
        };
        let pair = |prefix: &str, rest: &str| Some((prefix.to_owned(), rest.to_owned()));
        assert_eq!(found("hub/library/x"), pair("hub", "library/x"));
        assert_eq!(found("hub/team/x"), pair("hub/team", "x"));
        assert_eq!(found("hub"), None);
        assert_eq!(found("hubble/x"), None);
        let hub = routes.of(&Repository::parse("hub/x").unwrap()).unwrap();
        assert_eq!(hub.upstreams.len(), 2);
    }
}
