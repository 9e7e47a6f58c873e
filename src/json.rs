//! Decoding of JSON with less code than `serde_json::from_slice`.
//!
//! A derived struct can be read from a map or from a list of its fields in order, and serde_json compiles both for each struct. The
//! second form is not used; here a struct is a map. Not for encoding, nor for what becomes a [`serde_json::Value`].

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

/// Decodes a whole JSON text.
pub fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Maps(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

/// Passes everything on, but requests a map where a struct is wanted. The same holds for everything inside.
struct Maps<T>(T);

macro_rules! pass_on {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$name(visitor)
        }
    )*};
}

macro_rules! with_inside {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$name(Maps(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Maps<D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    with_inside! { deserialize_option deserialize_seq deserialize_map }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Maps(visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    /// Raw values are recognized by the name.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Maps<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Maps(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Maps(access))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Maps(access))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(access)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Maps<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Maps(seed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Maps<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Maps(seed))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Maps<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Maps(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    struct Inner {
        some_text: String,
        #[serde(default)]
        number: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    struct Outer {
        one: Inner,
        #[serde(default)]
        maybe: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        map: BTreeMap<String, Inner>,
        #[serde(default)]
        any: Value,
        #[serde(default)]
        raw: Option<Box<RawValue>>,
    }

    #[test]
    fn what_is_written_as_a_map_is_read_like_with_serde_json() {
        let text = r#"{"one":{"someText":"a\n","number":null,"unknown":[{}]},"maybe":{"someText":"b","number":1},
            "list":[{"someText":"c"}],"map":{"k":{"someText":"d"}},"any":{"x":[1,null]},"raw":[1, {}]}"#;
        let (here, there): (Outer, Outer) = (from_slice(text.as_bytes()).unwrap(), serde_json::from_slice(text.as_bytes()).unwrap());
        assert_eq!((&here.one, &here.maybe, &here.list, &here.map), (&there.one, &there.maybe, &there.list, &there.map));
        assert_eq!((&here.any, here.raw.as_ref().map(|raw| raw.get())), (&there.any, Some("[1, {}]")));
        assert_eq!((here.one.some_text.as_str(), here.list.len(), here.map["k"].some_text.as_str()), ("a\n", 1, "d"));
        for bad in ["", "{}", r#"{"one":4}"#, r#"{"one":{"someText":"a"}} x"#, r#"{"one":{"someText":"a","number":300}}"#, r#"{"one":{"#] {
            let here = from_slice::<Outer>(bad.as_bytes()).expect_err(bad).to_string();
            assert_eq!(here, serde_json::from_slice::<Outer>(bad.as_bytes()).expect_err(bad).to_string());
        }
    }

    #[test]
    fn a_list_is_no_struct() {
        for list in [r#"["a",1]"#, r#"{"one":["a",1]}"#, r#"{"one":{"someText":"a"},"list":[["a",1]]}"#] {
            let error = from_slice::<Outer>(list.as_bytes()).expect_err(list).to_string();
            assert!(error.starts_with("invalid type: sequence, expected struct "), "{error}");
        }
    }
}
