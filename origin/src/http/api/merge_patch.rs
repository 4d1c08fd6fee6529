//! `PATCH`: JSON Merge Patch, RFC 7396. What is named is set, `null` removes, what is not named stays; a list is
//! replaced as a whole.

use std::borrow::Cow;
use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::App;
use crate::http::extract;
use crate::http::problem::Problem;

/// Of what the body may be; plain JSON is taken for the same.
pub const MEDIA_TYPES: [&str; 2] = ["application/merge-patch+json", "application/json"];

/// A change of a `T`.
#[derive(Clone, Debug)]
pub struct MergePatch<T>(Map<String, Value>, PhantomData<fn() -> T>);

impl<T> FromRequest<Arc<App>> for MergePatch<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        extract::require_media_type(request.headers(), &MEDIA_TYPES)?;
        let body = extract::body(request, app).await?;
        extract::json(&body).map(|patch| Self(patch, PhantomData))
    }
}

impl<T: Serialize + DeserializeOwned> MergePatch<T> {
    /// What the patch makes of this.
    pub fn apply(self, current: &T) -> Result<T, Problem> {
        let mut value = serde_json::to_value(current).map_err(Problem::internal)?;
        merge(&mut value, Value::Object(self.0));
        let mut unknown = None;
        let read = serde_ignored::deserialize(value, |path| {
            unknown.get_or_insert_with(|| path.to_string());
        });
        let changed = read.map_err(|error| Problem::invalid_value(vec![error.to_string()]))?;
        match unknown {
            None => Ok(changed),
            Some(path) => Err(Problem::invalid_value(vec![format!("{path} is not known")])),
        }
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}

/// Described as its `T`, where every field at every depth may be left out or `null`.
impl<T: ToSchema> ToSchema for MergePatch<T> {
    fn name() -> Cow<'static, str> {
        patch_name(&T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        let inner = inner::<T>();
        let objects = objects(&inner);
        for (name, schema) in inner {
            if objects.contains(&name) {
                schemas.push((patch_name(&name), relaxed(&schema, &objects)));
            }
            schemas.push((name, schema));
        }
    }
}

impl<T: ToSchema> PartialSchema for MergePatch<T> {
    fn schema() -> RefOr<Schema> {
        relaxed(&T::schema(), &objects(&inner::<T>()))
    }
}

/// The schemas that a `T` is made of.
fn inner<T: ToSchema>() -> Vec<(String, RefOr<Schema>)> {
    let mut inner = Vec::new();
    T::schemas(&mut inner);
    inner
}

/// Those of them that can be changed in part.
fn objects(schemas: &[(String, RefOr<Schema>)]) -> HashSet<String> {
    let is_object = |schema: &Value| schema["properties"].is_object();
    let objects = schemas.iter().filter(|(_, schema)| {
        let schema = serde_json::to_value(schema).unwrap_or_default();
        is_object(&schema) || schema["oneOf"].as_array().is_some_and(|choices| choices.iter().any(is_object))
    });
    objects.map(|(name, _)| name.clone()).collect()
}

fn patch_name(name: &str) -> String {
    format!("{name}Patch")
}

fn relaxed(schema: &RefOr<Schema>, objects: &HashSet<String>) -> RefOr<Schema> {
    let relaxed = serde_json::to_value(schema).map(|schema| relax(schema, objects)).and_then(serde_json::from_value);
    relaxed.unwrap_or_else(|_| schema.clone())
}

/// The same schema for a part: nothing is required, every member may be `null`, and so on inside. What is inside of a
/// list stays, since a list is replaced as a whole.
fn relax(mut schema: Value, objects: &HashSet<String>) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let is_object = reference.rsplit('/').next().is_some_and(|name| objects.contains(name));
        return if is_object { json!({ "$ref": patch_name(reference) }) } else { schema };
    }
    let Value::Object(members) = &mut schema else { return schema };
    members.remove("required");
    for choice in ["oneOf", "allOf", "anyOf"] {
        if let Some(Value::Array(choices)) = members.get_mut(choice) {
            for choice in choices {
                *choice = relax(choice.take(), objects);
            }
        }
    }
    if let Some(Value::Object(properties)) = members.get_mut("properties") {
        for property in properties.values_mut() {
            let inner = relax(property.take(), objects);
            *property = json!({ "anyOf": [{ "type": "null" }, inner] });
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn the_examples_of_the_standard() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, result) in cases {
            let case = format!("{target} {patch}");
            merge(&mut target, patch);
            assert_eq!(target, result, "{case}");
        }
    }

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "only described")]
    struct Outer {
        inner: Inner,
        list: Vec<Inner>,
    }

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "only described")]
    struct Inner {
        text: String,
    }

    #[test]
    fn a_patch_is_described_as_a_part() {
        let mut schemas = Vec::new();
        MergePatch::<Outer>::schemas(&mut schemas);
        let inner = schemas.iter().find(|(name, _)| name == "InnerPatch").map(|(_, schema)| schema).unwrap();
        let inner = serde_json::to_value(inner).unwrap();
        assert_eq!(inner["required"], Value::Null);
        let outer = serde_json::to_value(MergePatch::<Outer>::schema()).unwrap();
        assert_eq!(outer["properties"]["inner"]["anyOf"][1]["$ref"], "#/components/schemas/InnerPatch");
        assert_eq!(outer["properties"]["list"]["anyOf"][1]["items"]["$ref"], "#/components/schemas/Inner");
    }
}
