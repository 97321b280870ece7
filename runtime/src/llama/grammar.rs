//! From a JSON schema to a grammar, with the bounds that the C++ converter lacks.
//!
//! The converter recurses over what it is given and never counts: references that go round, or
//! alternatives that double at every level, would hang or kill the process. So a schema is measured
//! here first, and refused with a reason when it is beyond what a request may ask for.

use std::collections::HashMap;

use serde_json::Value;

/// Bytes of a schema as text.
const MAX_BYTES: usize = 64 * 1024;
/// Levels of nesting.
const MAX_DEPTH: usize = 32;
/// Nodes, with everything that is repeated by alternatives counted as often as it is.
const MAX_NODES: u64 = 10_000;
/// Ways to reach a first character, which the grammar's own check walks one by one.
const MAX_STARTS: u64 = 10_000;
/// Bytes of one property name.
const MAX_NAME: usize = 256;
/// Properties of one object: the grammar grows with their square.
const MAX_PROPERTIES: usize = 256;
/// The largest `minLength`, `maxLength`, `minItems`, `maxItems`.
const MAX_REPETITION: u64 = 1_000;
/// Bytes of a `pattern`.
const MAX_PATTERN: usize = 256;
/// Repetitions in a `pattern`, those inside others multiplied: each is a state of the grammar.
const MAX_PATTERN_STATES: u64 = 512;
/// Parts of a `pattern` that may be empty, those repeated counted as often: each is one more way to
/// go on at every character, and a token has several characters.
const MAX_PATTERN_OPTIONAL: u64 = 16;
/// The largest number in `minimum` and its kin.
const MAX_BOUND: f64 = 1e15;
/// Bytes of the grammar that comes out.
const MAX_GRAMMAR: usize = 256 * 1024;

/// Why a schema was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON schema in format: {reason}")]
pub(crate) struct SchemaRefused {
    reason: String,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, SchemaRefused> {
    Err(SchemaRefused {
        reason: reason.into(),
    })
}

/// The grammar for any JSON object: what `format: "json"` asks for.
pub(crate) fn for_any_object() -> Result<String, SchemaRefused> {
    convert(r#"{"type":"object"}"#)
}

/// The grammar that allows exactly what the schema allows (as far as the converter goes).
pub(crate) fn for_schema(schema: &Value) -> Result<String, SchemaRefused> {
    let text = schema.to_string();
    if text.len() > MAX_BYTES {
        return refuse(format!(
            "{} bytes; at most {MAX_BYTES} are accepted",
            text.len()
        ));
    }
    Measure::of(schema).check()?;
    convert(&text)
}

fn convert(schema: &str) -> Result<String, SchemaRefused> {
    let grammar = llama_cpp_2::json_schema_to_grammar(schema).map_err(|error| SchemaRefused {
        reason: error.to_string(),
    })?;
    if grammar.len() > MAX_GRAMMAR {
        return refuse("it is too complex: simplify it, or lower its repetition counts");
    }
    Ok(grammar)
}

/// One walk over a schema, before C++ sees it.
struct Measure<'schema> {
    root: &'schema Value,
    /// Ways to start, by `$ref`; `None` while it is being counted.
    starts: HashMap<&'schema str, Option<u64>>,
}

impl<'schema> Measure<'schema> {
    fn of(root: &'schema Value) -> Self {
        Self {
            root,
            starts: HashMap::new(),
        }
    }

    fn check(mut self) -> Result<(), SchemaRefused> {
        if self.nodes(self.root, 0)? > MAX_NODES {
            return refuse(format!("more than {MAX_NODES} nodes"));
        }
        Ok(())
    }

    /// Counts the nodes below `schema` and checks each.
    fn nodes(&mut self, schema: &'schema Value, depth: usize) -> Result<u64, SchemaRefused> {
        if depth > MAX_DEPTH {
            return refuse(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let Some(object) = schema.as_object() else {
            return refuse("a schema must be an object");
        };
        check_keywords(schema)?;
        if self.ways_to_start(schema, depth)? > MAX_STARTS {
            return refuse("too many alternatives");
        }
        let mut count = 1_u64;
        for (keyword, value) in object {
            for child in subschemas(keyword, value)? {
                count = count.saturating_add(self.nodes(child, depth + 1)?);
            }
        }
        // {"type": ["a", "b"]} is copied whole for each of its types.
        if let Some(types) = object.get("type").and_then(Value::as_array) {
            count = count.saturating_mul(u64::try_from(types.len()).unwrap_or(u64::MAX));
        }
        if count > MAX_NODES {
            return refuse(format!("more than {MAX_NODES} nodes"));
        }
        Ok(count)
    }

    /// How many ways lead through alternatives and references to something that has a first
    /// character of its own. References that only lead to each other never do.
    fn ways_to_start(
        &mut self,
        schema: &'schema Value,
        depth: usize,
    ) -> Result<u64, SchemaRefused> {
        if depth > 4 * MAX_DEPTH {
            return refuse("references nested too deeply");
        }
        if let Some(reference) = schema.get("$ref") {
            return self.ways_to_start_reference(reference, depth);
        }
        let mut ways = 0_u64;
        for keyword in ["anyOf", "oneOf", "allOf"] {
            for child in schema
                .get(keyword)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                ways = ways.saturating_add(self.ways_to_start(child, depth + 1)?);
            }
        }
        Ok(ways.max(1))
    }

    fn ways_to_start_reference(
        &mut self,
        reference: &'schema Value,
        depth: usize,
    ) -> Result<u64, SchemaRefused> {
        let Some(name) = reference.as_str() else {
            return refuse("$ref must be a string");
        };
        match self.starts.get(name) {
            Some(Some(ways)) => return Ok(*ways),
            Some(None) => return refuse(format!("$ref {name} leads only back to itself")),
            None => {}
        }
        let Some(pointer) = name.strip_prefix('#').filter(|rest| rest.starts_with('/')) else {
            return refuse(format!(
                "$ref {name}: only references inside the schema (#/...) are supported"
            ));
        };
        let Some(target) = self.root.pointer(pointer) else {
            return refuse(format!("$ref {name} names nothing"));
        };
        self.starts.insert(name, None);
        let ways = self.ways_to_start(target, depth + 1)?;
        self.starts.insert(name, Some(ways));
        Ok(ways)
    }
}

/// The schemas directly under one keyword.
fn subschemas<'schema>(
    keyword: &str,
    value: &'schema Value,
) -> Result<Vec<&'schema Value>, SchemaRefused> {
    Ok(match (keyword, value) {
        ("properties" | "$defs" | "definitions", Value::Object(members)) => {
            if members.len() > MAX_PROPERTIES {
                return refuse(format!("more than {MAX_PROPERTIES} members in {keyword}"));
            }
            if let Some(name) = members.keys().find(|name| name.len() > MAX_NAME) {
                return refuse(format!("a name of {} bytes in {keyword}", name.len()));
            }
            members.values().collect()
        }
        ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Value::Array(children)) => {
            children.iter().collect()
        }
        ("items" | "additionalProperties", Value::Object(_)) => vec![value],
        _ => Vec::new(),
    })
}

/// Checks the numbers and texts of one schema.
fn check_keywords(schema: &Value) -> Result<(), SchemaRefused> {
    for keyword in ["minLength", "maxLength", "minItems", "maxItems"] {
        if let Some(count) = schema.get(keyword)
            && count.as_u64().is_none_or(|count| count > MAX_REPETITION)
        {
            return refuse(format!(
                "{keyword} must be a whole number from 0 to {MAX_REPETITION}"
            ));
        }
    }
    let mut bounds = [f64::NEG_INFINITY, f64::INFINITY];
    for (keyword, side) in [
        ("minimum", 0),
        ("exclusiveMinimum", 0),
        ("maximum", 1),
        ("exclusiveMaximum", 1),
    ] {
        let Some(value) = schema.get(keyword) else {
            continue;
        };
        match value.as_f64() {
            Some(number) if number.abs() <= MAX_BOUND => bounds[side] = number,
            _ => return refuse(format!("{keyword} must be a number within ±{MAX_BOUND:e}")),
        }
    }
    if bounds[0] > bounds[1] {
        return refuse("minimum is above maximum");
    }
    match schema.get("pattern").and_then(Value::as_str) {
        Some(pattern) => check_pattern(pattern),
        None => Ok(()),
    }
}

fn check_pattern(pattern: &str) -> Result<(), SchemaRefused> {
    if pattern.len() > MAX_PATTERN {
        return refuse(format!("a pattern of more than {MAX_PATTERN} bytes"));
    }
    let weight = Weight::of_pattern(pattern);
    if weight.states > MAX_PATTERN_STATES {
        return refuse("the pattern repeats too much: use smaller numbers in its {m,n}");
    }
    if weight.optional > MAX_PATTERN_OPTIONAL {
        return refuse("the pattern has too many optional parts (?, *, {0,n})");
    }
    Ok(())
}

/// What a pattern costs the grammar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weight {
    /// Its characters, with what is repeated by `{m,n}` counted as often as it may be.
    states: u64,
    /// Parts that may be empty, counted alike: each is one more way to go on at every character.
    optional: u64,
}

impl Weight {
    const ONE: Self = Self {
        states: 1,
        optional: 0,
    };

    fn and(self, other: Self) -> Self {
        Self {
            states: self.states.saturating_add(other.states),
            optional: self.optional.saturating_add(other.optional),
        }
    }

    fn times(self, count: u64) -> Self {
        Self {
            states: self.states.saturating_mul(count),
            optional: self.optional.saturating_mul(count),
        }
    }

    fn made_optional(self) -> Self {
        Self {
            optional: self.optional.saturating_add(1),
            ..self
        }
    }

    fn of_pattern(pattern: &str) -> Self {
        // One sum per open group; `last` is what a repetition would apply to.
        let mut sums = vec![Self::default()];
        let mut last = Self::default();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' | '?' => last = last.made_optional(),
                '+' => {}
                '{' => last = last.repeated(&mut characters),
                '(' => {
                    add(&mut sums, std::mem::take(&mut last));
                    sums.push(Self::default());
                }
                ')' if sums.len() > 1 => {
                    last = sums.pop().unwrap_or_default().and(last);
                }
                '[' => {
                    while characters.next().is_some_and(|next| next != ']') {}
                    add(&mut sums, std::mem::replace(&mut last, Self::ONE));
                }
                '\\' => {
                    characters.next();
                    add(&mut sums, std::mem::replace(&mut last, Self::ONE));
                }
                _ => add(&mut sums, std::mem::replace(&mut last, Self::ONE)),
            }
        }
        sums.into_iter().fold(last, Self::and)
    }

    /// Applies the `{m,n}` whose inside comes next.
    fn repeated(self, characters: &mut std::str::Chars<'_>) -> Self {
        let inside: String = characters.take_while(|next| *next != '}').collect();
        let numbers = || {
            inside
                .split(',')
                .filter_map(|number| number.trim().parse().ok())
        };
        let many = self.times(numbers().max().unwrap_or(1_u64).max(1));
        let may_be_none = numbers().min() == Some(0) || inside.starts_with(',');
        if may_be_none {
            many.made_optional()
        } else {
            many
        }
    }
}

fn add(sums: &mut [Weight], weight: Weight) {
    if let Some(sum) = sums.last_mut() {
        *sum = sum.and(weight);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use serde_json::{Value, json};

    use super::{Weight, for_any_object, for_schema};

    fn reason(schema: &Value) -> String {
        for_schema(schema).unwrap_err().to_string()
    }

    #[test]
    fn an_ordinary_schema_becomes_a_grammar() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 10},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            },
            "required": ["name", "age"],
        });
        assert!(for_schema(&schema).unwrap().contains("root ::="));
        assert!(for_any_object().unwrap().contains("root ::="));
    }

    #[test]
    fn a_schema_may_refer_to_itself_inside_a_container() {
        let schema = json!({
            "$ref": "#/$defs/tree",
            "$defs": {"tree": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": ["children"],
            }},
        });
        for_schema(&schema).unwrap();
    }

    #[test]
    fn references_that_go_round_are_refused() {
        let schema = json!({
            "allOf": [{"$ref": "#/$defs/a"}],
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        });
        assert!(reason(&schema).contains("leads only back to itself"));
    }

    #[test]
    fn alternatives_that_double_at_each_level_are_refused() {
        let mut definitions = serde_json::Map::new();
        for level in 0..24 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            definitions.insert(format!("d{level}"), json!({"anyOf": [next, next]}));
        }
        definitions.insert("d24".to_owned(), json!({"type": "string"}));
        let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
        assert!(reason(&schema).contains("too many alternatives"));
    }

    #[test]
    fn type_lists_that_double_at_each_level_are_refused() {
        let mut schema = json!({"type": "string"});
        for _ in 0..20 {
            schema = json!({"type": ["array", "array"], "items": schema});
        }
        assert!(reason(&schema).contains("nodes"));
    }

    #[test]
    fn sizes_beyond_the_bounds_are_refused() {
        assert!(reason(&json!({"type": "string", "maxLength": 100_000})).contains("maxLength"));
        assert!(reason(&json!({"const": "x".repeat(70_000)})).contains("bytes"));
        assert!(reason(&json!({"type": "integer", "minimum": 5, "maximum": 1})).contains("above"));
        let mut deep = json!({"type": "string"});
        for _ in 0..40 {
            deep = json!({"type": "array", "items": deep});
        }
        assert!(reason(&deep).contains("deeper"));
    }

    #[test]
    fn patterns_are_counted_with_their_repetitions() {
        for (pattern, states) in [
            ("^abc$", 5),
            ("^[0-9a-f]{8}-([0-9a-f]{4}-){3}$", 2 + 8 + 1 + 15),
            ("^(a{0,90}){0,90}$", 2 + 8100),
            (r"^\{5x$", 5),
            ("^(((a{100}){100}){100})$", 1_000_002),
        ] {
            assert_eq!(Weight::of_pattern(pattern).states, states, "{pattern}");
        }
        for (pattern, optional) in [("^a?b*c+d{0,9}$", 3), ("^(a?){0,200}b$", 201)] {
            assert_eq!(Weight::of_pattern(pattern).optional, optional, "{pattern}");
        }
        let schema = json!({"type": "string", "pattern": "^(a{0,90}){0,90}$"});
        assert!(reason(&schema).contains("repeats too much"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(reason(&json!(17)).contains("must be an object"));
        assert!(!reason(&json!({"type": "no such type"})).is_empty());
        assert!(reason(&json!({"$ref": "https://example.com/schema"})).contains("inside"));
    }
}
