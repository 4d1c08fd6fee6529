//! A secret that two sides share and that can be replaced while both run.

use secrecy::{ExposeSecret as _, SecretString};

/// The first of a list signs, and what any of them has signed is taken. So one side after the other can change: first
/// whoever verifies takes the new one too, then whoever signs signs with it, then the old one goes.
#[derive(Debug)]
pub struct SharedSecret {
    signing: SecretString,
    others: Vec<SecretString>,
}

impl SharedSecret {
    /// Out of a list; `None` when it is empty.
    pub fn of(mut list: Vec<SecretString>) -> Option<Self> {
        (!list.is_empty()).then(|| Self { signing: list.remove(0), others: list })
    }

    /// The one to sign with.
    pub fn signing(&self) -> &str {
        self.signing.expose_secret()
    }

    /// Whether a check succeeds with any of them: what it gives, or what was wrong with the first.
    pub fn verify<T, E>(&self, check: impl Fn(&str) -> Result<T, E>) -> Result<T, E> {
        check(self.signing())
            .or_else(|error| self.others.iter().find_map(|secret| check(secret.expose_secret()).ok()).ok_or(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signs_and_all_verify() {
        let secret = SharedSecret::of(vec!["new".into(), "old".into(), "older".into()]).unwrap();
        assert_eq!(secret.signing(), "new");
        for one in ["new", "old", "older"] {
            assert_eq!(secret.verify(|tried| if tried == one { Ok(tried.len()) } else { Err(()) }), Ok(one.len()));
        }
        assert_eq!(secret.verify(|tried| Err::<(), _>(tried.to_owned())), Err("new".to_owned()));
        assert!(SharedSecret::of(Vec::new()).is_none());
    }
}
