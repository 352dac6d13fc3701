//! What a token must allow.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::RepositoryName;

/// What a request needs to be allowed to do: a set of scopes such as `repository:a/b:pull`, `registry:catalog:*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::registry::remote) struct Scopes(BTreeSet<String>);

impl Scopes {
    /// `repository:<name>:pull`.
    pub(in crate::registry::remote) fn pull(repository: &RepositoryName) -> Self {
        Self([format!("repository:{repository}:pull")].into())
    }

    /// As [`Scopes::pull`], with another action that the kind wants for lists.
    pub(in crate::registry::remote) fn list(repository: &RepositoryName, action: Option<&str>) -> Self {
        match action {
            None => Self::pull(repository),
            Some(action) => Self::pull(repository).union(&Self([format!("repository:{repository}:{action}")].into())),
        }
    }

    /// These, as they are written.
    pub(in crate::registry::remote) fn of_texts(texts: &[String]) -> Self {
        Self(texts.iter().cloned().collect())
    }

    /// `repository:<name>:pull,push` (distribution wants both on every write).
    pub(in crate::registry::remote) fn push(repository: &RepositoryName) -> Self {
        Self([format!("repository:{repository}:pull,push")].into())
    }

    /// `repository:<name>:pull,push` and `repository:<from>:pull`.
    pub(in crate::registry::remote) fn mount(repository: &RepositoryName, from: &RepositoryName) -> Self {
        Self::push(repository).union(&Self::pull(from))
    }

    /// `registry:catalog:*`.
    pub(in crate::registry::remote) fn catalog() -> Self {
        Self(["registry:catalog:*".to_owned()].into())
    }

    /// None: a ping.
    pub(in crate::registry::remote) fn none() -> Self {
        Self::default()
    }

    /// What a challenge names, without the right to delete: we never ask for that, and Quay answers 400 to it.
    pub(super) fn of_challenge(scope: &str) -> Self {
        // A registry that names more than a few scopes is not describing one request.
        const MOST: usize = 16;
        let scopes = scope.split_ascii_whitespace().take(MOST).filter_map(|scope| {
            let Some((resource, actions)) = scope.rsplit_once(':') else {
                return Some(scope.to_owned());
            };
            let kept: Vec<&str> = actions.split(',').filter(|action| *action != "delete").collect();
            (!kept.is_empty()).then(|| format!("{resource}:{}", kept.join(",")))
        });
        Self::default().union(&Self(scopes.collect()))
    }

    /// Both, with the actions on one resource joined to one scope.
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut whole = BTreeSet::new();
        let mut actions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for scope in self.0.iter().chain(&other.0) {
            match scope.rsplit_once(':') {
                Some((resource, list)) => actions.entry(resource).or_default().extend(list.split(',')),
                // Amazon ECR Public asks for the scope `aws`, which has no resource.
                None => {
                    whole.insert(scope.clone());
                }
            }
        }
        whole.extend(actions.into_iter().map(|(resource, list)| {
            let list: Vec<&str> = list.into_iter().collect();
            format!("{resource}:{}", list.join(","))
        }));
        Self(whole)
    }

    /// Each scope's text, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The repository that is written, else the first that is read: for error texts.
    pub(super) fn repository(&self) -> Option<&str> {
        let name = |scope: &&str| scope.starts_with("repository:");
        let scope = self
            .iter()
            .filter(name)
            .find(|scope| scope.ends_with(",push"))
            .or_else(|| self.iter().find(name))?;
        let (resource, _) = scope.rsplit_once(':')?;
        resource.strip_prefix("repository:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().expect("a name")
    }

    fn texts(scopes: &Scopes) -> Vec<&str> {
        scopes.iter().collect()
    }

    #[test]
    fn scopes_have_the_texts_of_the_token_specification() {
        assert_eq!(texts(&Scopes::pull(&name("a/b"))), ["repository:a/b:pull"]);
        assert_eq!(texts(&Scopes::push(&name("a/b"))), ["repository:a/b:pull,push"]);
        assert_eq!(
            texts(&Scopes::mount(&name("z"), &name("a"))),
            ["repository:a:pull", "repository:z:pull,push"]
        );
        assert_eq!(
            texts(&Scopes::mount(&name("z"), &name("z"))),
            ["repository:z:pull,push"]
        );
        assert_eq!(texts(&Scopes::catalog()), ["registry:catalog:*"]);
        assert!(texts(&Scopes::none()).is_empty());
        assert_eq!(Scopes::mount(&name("z"), &name("a")).repository(), Some("z"));
    }

    #[test]
    fn challenges_add_what_they_name_but_never_the_right_to_delete() {
        let ours = Scopes::pull(&name("a"));
        let theirs = Scopes::of_challenge("repository:a:metadata_read,delete aws repository:b:delete");
        assert_eq!(texts(&ours.union(&theirs)), ["aws", "repository:a:metadata_read,pull"]);
        assert_eq!(
            texts(&Scopes::of_challenge("repository:a:push,pull")),
            ["repository:a:pull,push"]
        );
    }
}
