//! Prints the JSON half of the generated code: one `impl Json` and one wire shape for each message.
//!
//! The runtime it calls (`Reader`, `write::*`, `Shape`) is `protocol/http-api/src/json/`. Only what differs between
//! messages is generated: which key is which field, of what kind, required or not, and its default.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use super::names::{path_to, type_name, value_name};

/// Text of each `<package>.json.rs`, by file name.
pub(super) fn modules(set: &FileDescriptorSet) -> anyhow::Result<BTreeMap<String, String>> {
    let mut modules = BTreeMap::new();
    for file in &set.file {
        let package = file.package();
        let mut text = String::new();
        for message in &file.message_type {
            Printer { package, out: &mut text }.tree(message, &format!(".{package}.{}", message.name()))?;
        }
        modules.insert(format!("{package}.json.rs"), text);
    }
    Ok(modules)
}

struct Printer<'a> {
    package: &'a str,
    out: &'a mut String,
}

/// How a field looks to the JSON code.
struct Field<'a> {
    proto: &'a FieldDescriptorProto,
    name: String,
    kind: Kind,
}

enum Kind {
    Required,
    Optional { default: Option<String> },
    Repeated,
    Map { enclosed: String },
    OneOf { holder: String, holder_type: String },
}

impl Printer<'_> {
    fn tree(&mut self, message: &DescriptorProto, full: &str) -> anyhow::Result<()> {
        self.message(message, full).with_context(|| format!("in message {full}"))?;
        for nested in &message.nested_type {
            if !is_map_entry(nested) {
                self.tree(nested, &format!("{full}.{}", nested.name()))?;
            }
        }
        Ok(())
    }

    fn message(&mut self, message: &DescriptorProto, full: &str) -> anyhow::Result<()> {
        let fields: Vec<Field<'_>> =
            message.field.iter().map(|field| self.field(message, full, field)).collect::<anyhow::Result<_>>()?;
        let path = path_to(full, self.package, 0);
        writeln!(self.out, "\nimpl crate::json::Json for {path} {{")?;
        writeln!(self.out, "    fn write(&self, out: &mut Vec<u8>) {{\n        out.push(b'{{');")?;
        for field in &fields {
            self.write_field(field)?;
        }
        writeln!(self.out, "        crate::json::write::close_object(out);\n    }}\n")?;
        self.read_impl(&fields)?;
        writeln!(self.out, "}}\n")?;
        self.shape(&path, &fields)
    }

    fn field<'f>(
        &self,
        message: &'f DescriptorProto,
        full: &str,
        proto: &'f FieldDescriptorProto,
    ) -> anyhow::Result<Field<'f>> {
        let name = value_name(proto.name());
        let kind = if let Some(index) = proto.oneof_index {
            let index = usize::try_from(index)?;
            let oneof = message.oneof_decl.get(index).context("a field names a oneof that is not declared")?.name();
            let holder_type = path_to(&format!("{full}.{oneof}"), self.package, 0);
            Kind::OneOf { holder: value_name(oneof), holder_type }
        } else {
            match proto.label() {
                Label::Required => Kind::Required,
                Label::Optional => {
                    let deprecated = proto.options.as_ref().is_some_and(|options| options.deprecated());
                    let default = proto.default_value.clone().filter(|_| !deprecated);
                    Kind::Optional { default }
                }
                Label::Repeated => match message
                    .nested_type
                    .iter()
                    .find(|entry| is_map_entry(entry) && proto.type_name().rsplit('.').next() == Some(entry.name()))
                {
                    Some(entry) => {
                        let value =
                            entry.field.iter().find(|field| field.number() == 2).context("a map without values")?;
                        if value.r#type() == Type::Enum {
                            bail!("field {}: maps of enums are not supported; extend the generator", proto.name());
                        }
                        let enclosed = match value.r#type() {
                            Type::Message => path_to(value.type_name(), self.package, 0),
                            _ => String::new(),
                        };
                        Kind::Map { enclosed }
                    }
                    None => Kind::Repeated,
                },
            }
        };
        Ok(Field { proto, name, kind })
    }

    fn write_field(&mut self, field: &Field<'_>) -> anyhow::Result<()> {
        let Field { proto, name, kind } = field;
        let key = format!("b\"\\\"{}\\\":\"", proto.name());
        let enum_path = enum_path(proto, self.package);
        let out = &mut *self.out;
        match (kind, enum_path) {
            (Kind::Required, None) => writeln!(out, "        crate::json::write::field(out, {key}, &self.{name});")?,
            (Kind::Required, Some(path)) => {
                writeln!(
                    out,
                    "        crate::json::write::name(out, {key}, {path}::try_from(self.{name}).ok().map(|v| v.as_str_name()));"
                )?;
            }
            (Kind::Optional { default }, None) => {
                writeln!(
                    out,
                    "        if let Some(v) = &self.{name} {{\n            crate::json::write::field(out, {key}, v);"
                )?;
                if let Some(default) = default {
                    let literal = literal(proto, default)?;
                    writeln!(
                        out,
                        "        }} else {{\n            out.extend_from_slice({});",
                        bytes_literal(proto.name(), &literal)
                    )?;
                }
                writeln!(out, "        }}")?;
            }
            (Kind::Optional { default }, Some(path)) => {
                writeln!(
                    out,
                    "        if let Some(v) = self.{name} {{\n            crate::json::write::name(out, {key}, {path}::try_from(v).ok().map(|v| v.as_str_name()));"
                )?;
                if let Some(default) = default {
                    writeln!(
                        out,
                        "        }} else {{\n            out.extend_from_slice({});",
                        bytes_literal(proto.name(), &format!("\"{default}\""))
                    )?;
                }
                writeln!(out, "        }}")?;
            }
            (Kind::Repeated, None) => writeln!(out, "        crate::json::write::list(out, {key}, &self.{name});")?,
            (Kind::Repeated, Some(path)) => {
                writeln!(
                    out,
                    "        crate::json::write::names(out, {key}, &self.{name}, |v| {path}::try_from(v).ok().map(|v| v.as_str_name()));"
                )?;
            }
            (Kind::Map { .. }, _) => writeln!(out, "        crate::json::write::map(out, {key}, &self.{name});")?,
            (Kind::OneOf { holder, holder_type }, enum_path) => {
                let variant = type_name(proto.name());
                writeln!(out, "        if let Some({holder_type}::{variant}(v)) = &self.{holder} {{")?;
                match enum_path {
                    None => writeln!(out, "            crate::json::write::field(out, {key}, v);")?,
                    Some(path) => writeln!(
                        out,
                        "            crate::json::write::name(out, {key}, {path}::try_from(*v).ok().map(|v| v.as_str_name()));"
                    )?,
                }
                writeln!(out, "        }}")?;
            }
        }
        Ok(())
    }

    fn read_impl(&mut self, fields: &[Field<'_>]) -> anyhow::Result<()> {
        let out = &mut *self.out;
        let keys: Vec<String> = fields.iter().map(|field| format!("\"{}\"", field.proto.name())).collect();
        let required: Vec<&Field<'_>> = fields.iter().filter(|field| matches!(field.kind, Kind::Required)).collect();
        if required.len() > 64 {
            bail!("more than 64 required fields; the reader counts them in a u64");
        }
        writeln!(
            out,
            "    fn fill(&mut self, reader: &mut crate::json::Reader<'_>) -> Result<(), crate::json::ReadError> {{"
        )?;
        writeln!(out, "        const KEYS: &[&str] = &[{}];", keys.join(", "))?;
        writeln!(out, "        let mut object = reader.open_object()?;")?;
        writeln!(
            out,
            "        while let Some(field) = reader.next_field(&mut object, KEYS)? {{\n            match field {{"
        )?;
        let mut bit = 0_u32;
        for (index, field) in fields.iter().enumerate() {
            let name = &field.name;
            let enum_path = enum_path(field.proto, self.package);
            let take = match (&field.kind, enum_path) {
                (Kind::Required, None) => {
                    let text = format!("reader.required(&mut self.{name}, &mut object, {bit})?,");
                    bit += 1;
                    text
                }
                (Kind::Required, Some(path)) => {
                    let text = format!(
                        "{{ self.{name} = reader.required_name(|s| {path}::from_str_name(s).map(|v| v as i32))?; object.seen |= 1 << {bit}; }}"
                    );
                    bit += 1;
                    text
                }
                (Kind::Optional { .. }, None) => format!("reader.optional(&mut self.{name})?,"),
                (Kind::Optional { .. }, Some(path)) => {
                    format!(
                        "if let Some(v) = reader.name(|s| {path}::from_str_name(s).map(|v| v as i32))? {{ self.{name} = Some(v); }}"
                    )
                }
                (Kind::Repeated, None) => format!("self.{name} = reader.list()?,"),
                (Kind::Repeated, Some(path)) => {
                    format!("self.{name} = reader.names(|s| {path}::from_str_name(s).map(|v| v as i32))?,")
                }
                (Kind::Map { .. }, _) => format!("self.{name} = reader.map()?,"),
                (Kind::OneOf { holder, holder_type }, None) => {
                    format!("self.{holder} = Some({holder_type}::{}(reader.value()?)),", type_name(field.proto.name()))
                }
                (Kind::OneOf { holder, holder_type }, Some(path)) => {
                    format!(
                        "if let Some(v) = reader.name(|s| {path}::from_str_name(s).map(|v| v as i32))? {{ self.{holder} = Some({holder_type}::{}(v)); }}",
                        type_name(field.proto.name())
                    )
                }
            };
            writeln!(out, "                {index} => {take}")?;
        }
        writeln!(out, "                _ => reader.skip()?,\n            }}\n        }}")?;
        let names: Vec<String> = required.iter().map(|field| format!("\"{}\"", field.proto.name())).collect();
        writeln!(out, "        reader.close_object(object, &[{}]);\n        Ok(())\n    }}", names.join(", "))?;
        Ok(())
    }

    /// The table by which required fields are checked in protobuf input, which prost does not do.
    fn shape(&mut self, path: &str, fields: &[Field<'_>]) -> anyhow::Result<()> {
        let out = &mut *self.out;
        writeln!(
            out,
            "impl crate::json::Message for {path} {{\n    const SHAPE: &'static crate::json::Shape = &crate::json::Shape {{"
        )?;
        writeln!(out, "        fields: &[")?;
        let mut sorted: Vec<&Field<'_>> = fields.iter().collect();
        sorted.sort_by_key(|field| field.proto.number());
        for field in sorted {
            let number = field.proto.number();
            let name = field.proto.name();
            let label = match field.kind {
                Kind::Required => "Required",
                Kind::Optional { .. } | Kind::OneOf { .. } => "Optional",
                Kind::Repeated | Kind::Map { .. } => "Repeated",
            };
            let holds = match (&field.kind, field.proto.r#type()) {
                (Kind::Map { enclosed }, _) if enclosed.is_empty() => "Scalar".to_owned(),
                (Kind::Map { enclosed }, _) => format!("MapOf(|| <{enclosed} as crate::json::Message>::SHAPE)"),
                (_, Type::Message) => {
                    format!(
                        "Message(|| <{} as crate::json::Message>::SHAPE)",
                        path_to(field.proto.type_name(), self.package, 0)
                    )
                }
                (_, Type::Enum) => {
                    format!("Enum(|v| {}::try_from(v).is_ok())", path_to(field.proto.type_name(), self.package, 0))
                }
                _ => "Scalar".to_owned(),
            };
            writeln!(
                out,
                "            crate::json::ShapeField {{ number: {number}, name: \"{name}\", label: crate::json::Label::{label}, holds: crate::json::Holds::{holds} }},"
            )?;
        }
        writeln!(out, "        ],\n    }};\n}}")?;
        Ok(())
    }
}

fn enum_path(proto: &FieldDescriptorProto, package: &str) -> Option<String> {
    (proto.r#type() == Type::Enum).then(|| path_to(proto.type_name(), package, 0))
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

/// The JSON text of a default value.
fn literal(proto: &FieldDescriptorProto, default: &str) -> anyhow::Result<String> {
    Ok(match proto.r#type() {
        Type::String => format!("{default:?}"),
        Type::Double | Type::Float if !default.contains(['.', 'e', 'i', 'n']) => format!("{default}.0"),
        Type::Double | Type::Float | Type::Bool | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 => {
            default.to_owned()
        }
        other => bail!("field {}: a default of type {other:?} is not supported; extend the generator", proto.name()),
    })
}

fn bytes_literal(key: &str, value: &str) -> String {
    format!("b{:?}", format!("\"{key}\":{value},"))
}
