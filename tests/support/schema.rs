//! The JSON Schemas of `docs/schema`, and the check of a value against them.
//!
//! The check knows the keywords that these schemas use, and panics at any other. A published schema
//! lets later versions add members; here a member that is not described is an error.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value};

/// A schema of `docs/schema`.
pub struct Schema(Value);

impl Schema {
    /// Results of commands.
    pub fn of_results() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| Self::read("result.json"))
    }

    /// Errors.
    pub fn of_errors() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| Self::read("error.json"))
    }

    /// Lines of progress.
    pub fn of_progress() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| Self::read("progress.json"))
    }

    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema").join(name);
        let text = std::fs::read_to_string(path).expect("a schema");
        Self(serde_json::from_str(&text).expect("JSON"))
    }

    /// The schema itself.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Asserts that the value meets the schema.
    #[track_caller]
    pub fn assert_met(&self, value: &Value) {
        if let Err(error) = self.check(&self.0, value, "") {
            panic!("{error}\nin {value}");
        }
    }

    /// Asserts that the value meets the definition `name` of the schema.
    #[track_caller]
    pub fn assert_met_by(&self, name: &str, value: &Value) {
        if let Err(error) = self.check(self.definition(&format!("#/$defs/{name}")), value, "") {
            panic!("{name}: {error}\nin {value}");
        }
    }

    fn definition(&self, reference: &str) -> &Value {
        let pointer = reference.strip_prefix('#').expect("a reference into this schema");
        self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} is not defined"))
    }

    /// Checks a value; `at` is its position in the document.
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = schema.as_object().expect("a schema is an object");
        for (keyword, rule) in schema {
            let met = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => true,
                "$ref" => {
                    self.check(self.definition(text(rule)), value, at)?;
                    true
                }
                "type" => has_type(rule, value),
                "enum" => rule.as_array().expect("a list").contains(value),
                "const" => rule == value,
                "minimum" => value.as_i64().is_none_or(|it| Some(it) >= rule.as_i64()),
                "minLength" => length(value).is_none_or(|it| Some(it) >= rule.as_u64()),
                "maxLength" => length(value).is_none_or(|it| Some(it) <= rule.as_u64()),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}/{index}"))?;
                    }
                    true
                }
                "anyOf" => {
                    self.check_any(rule, value, at)?;
                    true
                }
                "properties" => {
                    self.check_members(schema, value, at)?;
                    true
                }
                "additionalProperties" => {
                    for (name, member) in value.as_object().into_iter().flatten() {
                        self.check(rule, member, &format!("{at}/{name}"))?;
                    }
                    true
                }
                "required" => {
                    let names = rule.as_array().expect("a list");
                    let missing = names.iter().find(|name| value.get(text(name)).is_none());
                    match missing.filter(|_| value.is_object()) {
                        Some(name) => return Err(format!("{at} has no {name}")),
                        None => true,
                    }
                }
                other => panic!("the keyword {other} is not known to this check"),
            };
            if !met {
                return Err(format!("{at}: {keyword} is {rule}, and the value {value}"));
            }
        }
        Ok(())
    }

    fn check_any(&self, rule: &Value, value: &Value, at: &str) -> Result<(), String> {
        let mut errors = Vec::new();
        for schema in rule.as_array().expect("a list") {
            match self.check(schema, value, at) {
                Ok(()) => return Ok(()),
                Err(error) => errors.push(format!("{schema}: {error}")),
            }
        }
        Err(format!("{at} meets none of:\n{}", errors.join("\n")))
    }

    /// Checks each member, of which each has to be described.
    fn check_members(
        &self,
        schema: &Map<String, Value>,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        assert!(!schema.contains_key("additionalProperties"), "members are described or free");
        for (name, member) in value.as_object().into_iter().flatten() {
            let rule = schema["properties"].get(name);
            let rule = rule.ok_or_else(|| format!("{at}/{name} is not described"))?;
            self.check(rule, member, &format!("{at}/{name}"))?;
        }
        Ok(())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn has_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match text(name) {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("there is no type {other}"),
    };
    rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))
}
