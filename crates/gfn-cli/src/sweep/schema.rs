//! The JSON schema of `[sweep]`, for editors; `settings` and `axis` say more when they read one.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::axis::RANGES;
use super::settings::{HalvingSettings, Method};

/// The table; what has none of its names is an axis, `#/$defs/axis` of the whole schema.
pub fn table_schema(generator: &mut SchemaGenerator) -> Value {
    let mut method = Method::json_schema(generator).to_value();
    method["description"] =
        json!("How axes become trials. Default: list with tables [[sweep.trial]], else grid.");
    let mut halving = HalvingSettings::json_schema(generator).to_value();
    halving["description"] = json!(
        "Successive halving: all trials train for a while, the best of them on, and so on \
         (eta, first_trajectories, metric)."
    );
    let seed = json!({ "type": "integer", "minimum": 0 });
    json!({
        "description": "Many trials of a spec: `gfn sweep`. Other keys are axes.",
        "type": "object",
        "properties": {
            "method": method,
            "samples": {
                "description": "How many configurations the method random draws.",
                "type": "integer",
                "minimum": 1,
            },
            "sweep_seed": {
                "description": "Seed of these draws.",
                "type": "integer",
                "minimum": 0,
                "default": 0,
            },
            "halving": halving,
            "trial": {
                "description": "A table [[sweep.trial]] per trial of the method list: the keys that it sets.",
                "type": "array",
                "minItems": 1,
                "items": { "type": "object", "minProperties": 1 },
            },
            "seed": {
                "description": "Training seeds, a list or { range = [1, 5] }: every configuration is run with each.",
                "anyOf": [{ "type": "array", "minItems": 1, "items": seed }, range("range", &seed)],
            },
        },
        "additionalProperties": { "$ref": "#/$defs/axis" },
    })
}

/// An axis. Tables in it are parts of dotted keys.
pub fn axis_schema() -> Value {
    let ranges = RANGES.map(|word| {
        let number = if word == "range" { "integer" } else { "number" };
        range(word, &json!({ "type": number }))
    });
    let mut forms = vec![json!({ "type": "array", "minItems": 1 })];
    forms.extend(ranges);
    forms.push(json!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "not": { "enum": RANGES } },
        "additionalProperties": { "$ref": "#/$defs/axis" },
    }));
    json!({
        "description": "An axis: a list of values, or of tables that each set several keys; \
                        { range = [1, 5] }, { uniform = [0, 1] } or { log_uniform = [1e-4, 1e-2] }.",
        "anyOf": forms,
    })
}

/// `{ word = [low, high] }`.
fn range(word: &str, number: &Value) -> Value {
    json!({
        "type": "object",
        "properties": { word: { "type": "array", "items": number, "minItems": 2, "maxItems": 2 } },
        "required": [word],
        "additionalProperties": false,
    })
}
