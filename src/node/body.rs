//! Pure. JSON bodies of `POST /put` and `POST /batch`, and the words in which they are refused.
//!
//! ```text
//! put:   {"key":"a","value":"x"}                     -> Item
//! batch: {"items":[{"key":"a","value":"x"}, ...]}    -> [Item], in the order sent
//! ```
//!
//! A string without escapes is borrowed from the body. Unknown fields are read and ignored, but like
//! everything else they must be valid JSON nested at most 128 deep (serde_json's recursion limit; its own
//! `IgnoredAny` has none, hence [`Skip`]). Faults of meaning are collected while parsing and judged after it:
//! a serde error could carry our text, but would add a line and a column to it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::base::limits::{BATCH_ITEMS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::http::status::Status;

/// One write asked for. The key has 1..=`KEY_BYTES_MAX` bytes, the value at most `VALUE_BYTES_MAX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub key: Cow<'a, str>,
    pub value: Cow<'a, str>,
}

/// A body we do not take: answer with this status and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBody {
    pub status: Status,
    pub text: String,
}

impl BadBody {
    fn new(text: impl Into<String>) -> BadBody {
        BadBody {
            status: Status::BadRequest,
            text: text.into(),
        }
    }
}

/// Body of `POST /put`.
pub fn put(body: &[u8]) -> Result<Item<'_>, BadBody> {
    let fields: Value<'_, Fields<'_>> = document(body, r#"{"key":...,"value":...}"#)?;
    match fields {
        Value::Good(fields) => fields.judge().map_err(|fault| fault.bad),
        other => Err(BadBody::new(format!(
            "body must be a JSON object (got {})",
            other.kind()
        ))),
    }
}

/// Body of `POST /batch`. All items are good, or there is an error naming the first that is not.
pub fn batch(body: &[u8]) -> Result<Vec<Item<'_>>, BadBody> {
    let batch: Value<'_, Batch<'_>> = document(body, r#"{"items":[{"key":...,"value":...}]}"#)?;
    let batch = match batch {
        Value::Good(batch) => batch,
        other => {
            return Err(BadBody::new(format!(
                "body must be a JSON object (got {})",
                other.kind()
            )));
        }
    };
    if batch.twice {
        return Err(BadBody::new("duplicate field: items"));
    }
    match batch.items {
        Value::Good(items) => items.0,
        Value::Absent | Value::Null => Err(BadBody::new("items is required")),
        other => Err(BadBody::new(format!(
            "items must be a JSON array (got {})",
            other.kind()
        ))),
    }
}

/// Parses the one JSON value a body consists of.
fn document<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &str) -> Result<T, BadBody> {
    let text = std::str::from_utf8(body).map_err(|error| {
        BadBody::new(format!(
            "body is not valid UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })?;
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(BadBody::new(format!("bad JSON: {error}"))),
        None => return Err(BadBody::new(format!("empty body; expected {expected}"))),
    };
    let end = values.byte_offset();
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    match body[end..].iter().position(|byte| !space(byte)) {
        None => Ok(value),
        Some(more) => Err(BadBody::new(format!(
            "trailing data at byte {}",
            end + more
        ))),
    }
}

/// A JSON value where a `T` should be.
#[derive(Debug)]
enum Value<'a, T> {
    Absent,
    Null,
    Good(T),
    Text(Cow<'a, str>),
    Other(&'static str),
}

impl<T> Value<'_, T> {
    fn kind(&self) -> &'static str {
        match self {
            Value::Absent => "nothing",
            Value::Null => "null",
            Value::Good(_) => "the right type",
            Value::Text(_) => "string",
            Value::Other(kind) => kind,
        }
    }
}

/// What a `T` is made of; the rest of JSON is [`Value`]'s business.
trait Shape<'de>: Sized {
    fn object<A: MapAccess<'de>>(map: A) -> Result<Value<'de, Self>, A::Error> {
        skip_object(map).map(|()| Value::Other("object"))
    }

    fn array<A: SeqAccess<'de>>(seq: A) -> Result<Value<'de, Self>, A::Error> {
        skip_array(seq).map(|()| Value::Other("array"))
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Value<'de, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor(std::marker::PhantomData))
    }
}

struct ValueVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Shape<'de>> Visitor<'de> for ValueVisitor<T> {
    type Value = Value<'de, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other("boolean"))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Value::Other("number"))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Value::Other("number"))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Other("number"))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::array(seq)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::object(map)
    }
}

/// A value nobody looks at.
struct Skip;

impl<'de> Shape<'de> for Skip {}

fn skip_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_key::<Value<'de, Skip>>()?.is_some() {
        map.next_value::<Value<'de, Skip>>()?;
    }
    Ok(())
}

fn skip_array<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<Value<'de, Skip>>()?.is_some() {}
    Ok(())
}

/// `{"key":...,"value":...}` before judgement.
struct Fields<'a> {
    key: Value<'a, Skip>,
    value: Value<'a, Skip>,
    twice: Option<&'static str>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum FieldName {
    Key,
    Value,
    #[serde(other)]
    Other,
}

impl<'de> Shape<'de> for Fields<'de> {
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Value<'de, Self>, A::Error> {
        let mut fields = Fields {
            key: Value::Absent,
            value: Value::Absent,
            twice: None,
        };
        while let Some(name) = map.next_key::<FieldName>()? {
            let value = map.next_value()?;
            let (slot, name) = match name {
                FieldName::Key => (&mut fields.key, "key"),
                FieldName::Value => (&mut fields.value, "value"),
                FieldName::Other => continue,
            };
            if !matches!(slot, Value::Absent) {
                fields.twice = Some(name);
            }
            *slot = value;
        }
        Ok(Value::Good(fields))
    }
}

/// What is wrong with one item, and in which field.
struct Fault {
    field: &'static str,
    bad: BadBody,
}

impl Fault {
    fn new(field: &'static str, text: String) -> Fault {
        Fault {
            field,
            bad: BadBody::new(text),
        }
    }
}

impl<'a> Fields<'a> {
    fn judge(self) -> Result<Item<'a>, Fault> {
        if let Some(field) = self.twice {
            return Err(Fault::new(field, format!("duplicate field: {field}")));
        }
        let key = match self.key {
            Value::Text(key) if !key.is_empty() => key,
            Value::Text(_) | Value::Absent | Value::Null => {
                return Err(Fault::new(
                    "key",
                    "key must be a non-empty string".to_owned(),
                ));
            }
            other => return Err(not_a_string("key", other.kind())),
        };
        if key.len() > KEY_BYTES_MAX {
            let text = format!(
                "key is too long: {} bytes, at most {KEY_BYTES_MAX}",
                key.len()
            );
            return Err(Fault::new("key", text));
        }
        let value = match self.value {
            Value::Text(value) => value,
            Value::Absent | Value::Null => {
                return Err(Fault::new("value", "value is required".to_owned()));
            }
            other => return Err(not_a_string("value", other.kind())),
        };
        if value.len() > VALUE_BYTES_MAX {
            let text = format!(
                "value is too long: {} bytes, at most {VALUE_BYTES_MAX}",
                value.len()
            );
            let bad = BadBody {
                status: Status::ContentTooLarge,
                text,
            };
            return Err(Fault {
                field: "value",
                bad,
            });
        }
        Ok(Item { key, value })
    }
}

fn not_a_string(field: &'static str, kind: &str) -> Fault {
    Fault::new(
        field,
        format!("{field} must be a JSON string (got {kind}); quote it"),
    )
}

/// `{"items":[...]}` before judgement.
struct Batch<'a> {
    items: Value<'a, Items<'a>>,
    twice: bool,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum BatchName {
    Items,
    #[serde(other)]
    Other,
}

impl<'de> Shape<'de> for Batch<'de> {
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Value<'de, Self>, A::Error> {
        let mut batch = Batch {
            items: Value::Absent,
            twice: false,
        };
        while let Some(name) = map.next_key::<BatchName>()? {
            match name {
                BatchName::Items => {
                    batch.twice |= !matches!(batch.items, Value::Absent);
                    batch.items = map.next_value()?;
                }
                BatchName::Other => drop(map.next_value::<Value<'de, Skip>>()?),
            }
        }
        Ok(Value::Good(batch))
    }
}

/// Each item is judged as it comes: what is kept of 64 MiB of items is what will be written.
struct Items<'a>(Result<Vec<Item<'a>>, BadBody>);

impl<'de> Shape<'de> for Items<'de> {
    fn array<A: SeqAccess<'de>>(mut seq: A) -> Result<Value<'de, Self>, A::Error> {
        let mut items = Vec::new();
        while let Some(value) = seq.next_element::<Value<'de, Fields<'de>>>()? {
            let place = items.len();
            let item = match value {
                _ if place >= BATCH_ITEMS_MAX => Err(BadBody {
                    status: Status::ContentTooLarge,
                    text: format!("more than {BATCH_ITEMS_MAX} items; send several batches"),
                }),
                Value::Good(fields) => fields.judge().map_err(|Fault { field, bad }| BadBody {
                    text: format!("items[{place}].{field}: {}", bad.text),
                    ..bad
                }),
                other => Err(BadBody::new(format!(
                    "items[{place}] must be a JSON object (got {})",
                    other.kind()
                ))),
            };
            match item {
                Ok(item) => items.push(item),
                Err(bad) => {
                    skip_array(seq)?;
                    return Ok(Value::Good(Items(Err(bad))));
                }
            }
        }
        Ok(Value::Good(Items(Ok(items))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_text(body: &str) -> String {
        match put(body.as_bytes()) {
            Ok(item) => format!("{}={}", item.key, item.value),
            Err(bad) => format!("{} {}", bad.status.code(), bad.text),
        }
    }

    fn batch_text(body: &str) -> String {
        match batch(body.as_bytes()) {
            Ok(items) => items
                .iter()
                .map(|item| format!("{}={};", item.key, item.value))
                .collect(),
            Err(bad) => format!("{} {}", bad.status.code(), bad.text),
        }
    }

    #[test]
    fn puts() {
        for (body, want) in [
            (r#"{"key":"a","value":"x"}"#, "a=x"),
            (" \n{ \"value\" : \"x\" , \"key\" : \"a\" }\r\n\t ", "a=x"),
            (r#"{"key":"a","value":""}"#, "a="),
            (
                r#"{"key":"\u0041\n\ud83d\ude00","value":"\"\/"}"#,
                "A\n😀=\"/",
            ),
            (
                r#"{"ttl":[1,{"a":null}],"key":"a","value":"x","more":{"value":5}}"#,
                "a=x",
            ),
        ] {
            assert_eq!(put_text(body), want, "{body}");
        }
    }

    #[test]
    fn bad_puts_are_told_what_is_wrong() {
        let empty = r#"empty body; expected {"key":...,"value":...}"#;
        for (body, want) in [
            ("", empty),
            (" \r\n", empty),
            ("{}", "key must be a non-empty string"),
            (
                r#"{"key":"","value":"x"}"#,
                "key must be a non-empty string",
            ),
            (
                r#"{"key":null,"value":"x"}"#,
                "key must be a non-empty string",
            ),
            (
                r#"{"KEY":"a","value":"x"}"#,
                "key must be a non-empty string",
            ),
            (
                r#"{"key":7,"value":"x"}"#,
                "key must be a JSON string (got number); quote it",
            ),
            (r#"{"key":"a"}"#, "value is required"),
            (r#"{"key":"a","value":null}"#, "value is required"),
            (r#"{"key":"a","Value":"x"}"#, "value is required"),
            (
                r#"{"key":"a","key":"b","value":"x"}"#,
                "duplicate field: key",
            ),
            (
                r#"{"key":"a","value":"x","value":"y"}"#,
                "duplicate field: value",
            ),
            (r#"{"key":"a","value":"x"} x"#, "trailing data at byte 24"),
            (r#"{"key":"a","value":"x"}{}"#, "trailing data at byte 23"),
            ("[]", "body must be a JSON object (got array)"),
            ("null", "body must be a JSON object (got null)"),
            ("\"a\"", "body must be a JSON object (got string)"),
            ("5", "body must be a JSON object (got number)"),
        ] {
            assert_eq!(put_text(body), format!("400 {want}"), "{body}");
        }
        for (value, kind) in [
            ("5", "number"),
            ("-5.5", "number"),
            ("true", "boolean"),
            ("{}", "object"),
            ("[]", "array"),
        ] {
            let want = format!("400 value must be a JSON string (got {kind}); quote it");
            assert_eq!(put_text(&format!(r#"{{"key":"a","value":{value}}}"#)), want);
        }
    }

    #[test]
    fn broken_json_is_refused_even_where_nobody_looks() {
        for body in [
            "{",
            "{\"key\":",
            "{key:1}",
            "hello",
            "{\"key\":\"a\",}",
            "\u{feff}{}",
            r#"{"key":"a","value":"x","n":1e999}"#,
            r#"{"key":"a","value":"x","n":NaN}"#,
            r#"{"key":"a","value":"x","n":"\ud800"}"#,
            r#"{"key":"a","value":"\ud800"}"#,
            r#"{"key":"a","value":"\udc00x"}"#,
            "{\"key\":\"a\",\"value\":\"\n\"}",
        ] {
            assert!(
                put_text(body).starts_with("400 bad JSON: "),
                "{body}: {}",
                put_text(body)
            );
        }
    }

    #[test]
    fn utf8_is_checked_first() {
        let bad = put(b"{\"key\":\"a\",\"value\":\"\xff\"}").expect_err("not UTF-8");
        assert_eq!(bad.text, "body is not valid UTF-8 at byte 20");
    }

    #[test]
    fn batches() {
        for (body, want) in [
            (
                r#"{"items":[{"key":"a","value":"x"},{"key":"a","value":"y"}]}"#,
                "a=x;a=y;",
            ),
            (r#"{"items":[]}"#, ""),
            (
                r#"{"more":[[{}]],"items":[{"value":"1","key":"b","z":0}]}"#,
                "b=1;",
            ),
            (
                "",
                r#"400 empty body; expected {"items":[{"key":...,"value":...}]}"#,
            ),
            ("{}", "400 items is required"),
            (r#"{"items":null}"#, "400 items is required"),
            (
                r#"{"items":{}}"#,
                "400 items must be a JSON array (got object)",
            ),
            (
                r#"{"items":"a"}"#,
                "400 items must be a JSON array (got string)",
            ),
            (r#"{"items":[],"items":[]}"#, "400 duplicate field: items"),
            (
                r#"[{"key":"a","value":"x"}]"#,
                "400 body must be a JSON object (got array)",
            ),
            (
                r#"{"items":[5]}"#,
                "400 items[0] must be a JSON object (got number)",
            ),
            (
                r#"{"items":[{"key":"a","value":"x"},{"key":"a"},7]}"#,
                "400 items[1].value: value is required",
            ),
            (
                r#"{"items":[{"key":"a","value":1}]}"#,
                "400 items[0].value: value must be a JSON string (got number); quote it",
            ),
            (
                r#"{"items":[{"key":"a","value":"x"}]}]"#,
                "400 trailing data at byte 35",
            ),
        ] {
            assert_eq!(batch_text(body), want, "{body}");
        }
        assert!(batch_text(r#"{"items":[{"key":1},"#).starts_with("400 bad JSON"));
    }

    #[test]
    fn nesting_is_bounded_everywhere() {
        for open in ["[", "{\"a\":"] {
            let (close, inner) = if open == "[" { ("]", "") } else { ("}", "0") };
            let deep = |n: usize| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
            for (n, good) in [(100, true), (100_000, false)] {
                let put = put_text(&format!(
                    "{{\"key\":\"a\",\"value\":\"x\",\"z\":{}}}",
                    deep(n)
                ));
                let batch = batch_text(&format!("{{\"items\":[],\"z\":{}}}", deep(n)));
                assert_eq!(
                    (put == "a=x", batch.is_empty()),
                    (good, good),
                    "{put} {batch}"
                );
                assert!(
                    put_text(&deep(100_000)).starts_with("400 bad JSON"),
                    "{}",
                    put_text(&deep(100_000))
                );
                assert!(batch_text(&format!("{{\"items\":{}}}", deep(n))).starts_with("400 "));
            }
        }
    }

    #[test]
    fn limits_are_of_the_decoded_bytes() {
        let put_of = |key: usize, value: usize| {
            put_text(&format!(
                "{{\"key\":\"{}\",\"value\":\"{}\"}}",
                "k".repeat(key),
                "v".repeat(value)
            ))
        };
        assert!(put_of(KEY_BYTES_MAX, VALUE_BYTES_MAX).starts_with("kkk"));
        assert_eq!(
            put_of(KEY_BYTES_MAX + 1, 1),
            "400 key is too long: 4097 bytes, at most 4096"
        );
        assert_eq!(
            put_of(1, VALUE_BYTES_MAX + 1),
            "413 value is too long: 8388609 bytes, at most 8388608"
        );
        let escaped = "\\u0061".repeat(KEY_BYTES_MAX);
        assert!(put_text(&format!("{{\"key\":\"{escaped}\",\"value\":\"\"}}")).starts_with("aaa"));
    }

    #[test]
    fn plain_strings_are_not_copied() {
        let item = put(br#"{"key":"a","value":"x"}"#).expect("good");
        assert!(matches!(
            (item.key, item.value),
            (Cow::Borrowed("a"), Cow::Borrowed("x"))
        ));
    }
}
