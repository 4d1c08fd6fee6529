//! Assistants, tools and numbers as the API keeps them: JSON objects with an id and two dates.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::clock::iso;
use super::facts::{ORG_ID, object};

/// Objects of one kind, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Collection {
    objects: Vec<Map<String, Value>>,
}

impl Collection {
    /// Stores a new object and returns it complete. An `id` that is given is kept: tests seed with known ids,
    /// while the API refuses the member before it comes here.
    pub(crate) fn create(&mut self, mut body: Map<String, Value>, now: OffsetDateTime) -> Map<String, Value> {
        body.entry("id").or_insert_with(|| Uuid::new_v4().to_string().into());
        body.insert("orgId".into(), ORG_ID.into());
        body.insert("createdAt".into(), iso(now).into());
        body.insert("updatedAt".into(), iso(now).into());
        self.objects.push(body.clone());
        body
    }

    /// The object with this id.
    pub(crate) fn get(&self, id: &str) -> Option<&Map<String, Value>> {
        self.objects.iter().find(|object| object["id"] == id)
    }

    /// The first object whose member `key` is `value`.
    pub(crate) fn find(&self, key: &str, value: &str) -> Option<&Map<String, Value>> {
        self.objects.iter().find(|object| object.get(key).is_some_and(|found| found == value))
    }

    /// All objects, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.objects.iter().rev()
    }

    /// Changes an object shallowly: a member that is sent replaces the whole old one, `null` clears it, the rest
    /// stays.
    pub(crate) fn patch(
        &mut self,
        id: &str,
        body: Map<String, Value>,
        now: OffsetDateTime,
    ) -> Option<Map<String, Value>> {
        let object = self.objects.iter_mut().find(|object| object["id"] == id)?;
        for (key, value) in body {
            if value.is_null() {
                object.remove(&key);
            } else {
                object.insert(key, value);
            }
        }
        object.insert("updatedAt".into(), iso(now).into());
        Some(object.clone())
    }

    /// Takes an object away and returns it.
    pub(crate) fn delete(&mut self, id: &str) -> Option<Map<String, Value>> {
        let index = self.objects.iter().position(|object| object["id"] == id)?;
        Some(self.objects.remove(index))
    }
}

/// An object as the API shows it: a secret that was written inline is replaced by the fact that there is one.
pub(crate) fn presented(object: &Map<String, Value>) -> Value {
    let mut shown = object.clone();
    let inline = shown.get_mut("server").and_then(Value::as_object_mut).and_then(|server| server.remove("secret"));
    let legacy = shown.remove("serverUrlSecret");
    if inline.or(legacy).is_some() {
        shown.insert("isServerUrlSecretSet".into(), true.into());
    }
    shown.into()
}

/// The query of a list: `limit` and the date filters.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    limit: usize,
    dates: Vec<(String, OffsetDateTime)>,
    equal: Vec<(String, String)>,
}

impl Filter {
    /// Reads query parameters; the faults are the API's.
    pub(crate) fn parse(query: &[(String, String)]) -> Result<Self, Vec<String>> {
        let mut filter = Self { limit: 100, ..Self::default() };
        let mut faults = Vec::new();
        for (key, value) in query {
            match key.as_str() {
                "limit" => match value.parse() {
                    Ok(limit) if limit <= 1000 => filter.limit = limit,
                    _ => faults.push("limit must not be greater than 1000".to_owned()),
                },
                "assistantId" | "phoneNumberId" | "id" => {
                    filter.equal.push((key.clone(), value.clone()));
                }
                _ if key.starts_with("createdAt") || key.starts_with("updatedAt") => {
                    match OffsetDateTime::parse(value, &Rfc3339) {
                        Ok(date) => filter.dates.push((key.clone(), date)),
                        Err(_) => {
                            faults.push(format!("{key} must be a valid ISO 8601 date string"));
                        }
                    }
                }
                _ => faults.push(format!("property {key} should not exist")),
            }
        }
        if faults.is_empty() { Ok(filter) } else { Err(faults) }
    }

    /// The page of `objects` (newest first) that was asked for.
    pub(crate) fn apply(&self, objects: impl Iterator<Item = Value>) -> Vec<Value> {
        objects.filter(|object| self.matches(object)).take(self.limit).collect()
    }

    fn matches(&self, object: &Value) -> bool {
        let dates = self.dates.iter().all(|(key, bound)| {
            // `createdAtGt`: the member's name, then the relation.
            let (member, relation) = key.split_at("createdAt".len());
            let Some(date) = object[member].as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()) else {
                return false;
            };
            match relation {
                "Gt" => date > *bound,
                "Lt" => date < *bound,
                "Ge" => date >= *bound,
                _ => date <= *bound,
            }
        });
        dates && self.equal.iter().all(|(key, value)| object[key] == *value)
    }
}

/// The `server` of an object, or the older `serverUrl` and `serverUrlSecret`, as one form.
pub(crate) fn server_object(object_with_server: &Map<String, Value>) -> Option<Map<String, Value>> {
    if let Some(server) = object_with_server.get("server").filter(|server| server["url"].is_string()) {
        return Some(object(server.clone()));
    }
    let url = object_with_server.get("serverUrl").filter(|url| url.is_string())?;
    let secret = object_with_server.get("serverUrlSecret").cloned().unwrap_or_default();
    Some(object(json!({"url": url, "secret": secret})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_795_359_000 + second).expect("a valid time")
    }

    #[test]
    fn a_patch_replaces_whole_members_and_keeps_the_others() {
        let mut assistants = Collection::default();
        let made =
            assistants.create(object(json!({"name": "A", "model": {"provider": "openai", "tools": [1]}})), at(0));
        let id = made["id"].as_str().expect("an id").to_owned();
        let patched = assistants
            .patch(&id, object(json!({"model": {"provider": "openai"}, "name": null})), at(1))
            .expect("it is there");
        assert_eq!(patched["model"], json!({"provider": "openai"}));
        assert!(!patched.contains_key("name"));
        assert_ne!(patched["updatedAt"], patched["createdAt"]);
    }

    #[test]
    fn secrets_written_inline_are_not_shown() {
        let shown = presented(&object(json!({"server": {"url": "https://x", "secret": "s"}})));
        assert_eq!(shown, json!({"server": {"url": "https://x"}, "isServerUrlSecretSet": true}));
    }

    #[test]
    fn a_list_is_filtered_by_date_and_cut() {
        let objects = || [3, 2, 1].map(|second| json!({"createdAt": iso(at(second))})).into_iter();
        let query = |key: &str, value: String| Filter::parse(&[(key.to_owned(), value)]).expect("valid");
        assert_eq!(query("createdAtGt", iso(at(1))).apply(objects()).len(), 2);
        assert_eq!(query("createdAtLe", iso(at(1))).apply(objects()).len(), 1);
        assert_eq!(query("limit", "1".into()).apply(objects())[0]["createdAt"], iso(at(3)));
    }
}
