//! The record of an admitted agent, with what it said of itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::agent::AgentInfo;
use muster_model::attribute::{Attribute as ModelAttribute, AttributeValue};
use muster_model::record::{Admission as ModelAdmission, AgentRecord};
use muster_model::resource::{
    Ranges, Reservation as ModelReservation, ReservationKind, Resource as ModelResource, ResourceKey, ResourceName,
    Resources, Value as ModelValue,
};
use muster_model::{AgentId, Milli, Role, Uuid, WallTime};
use rkyv::{Archive, Deserialize, Serialize};

use super::RecordError;

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Agent {
    id: String,
    certificate: [u8; 32],
    join_nonce: [u8; 16],
    info: Info,
    admission: Admission,
    is_deactivated: bool,
    is_revoked: bool,
    admitted: u64,
    ratchet_token: Option<[u8; 16]>,
}

#[derive(Archive, Serialize, Deserialize)]
enum Admission {
    Active,
    Unreachable(u64),
    Gone(u64),
}

#[derive(Archive, Serialize, Deserialize)]
struct Info {
    hostname: String,
    ip: String,
    port: u16,
    total: Vec<Resource>,
    attributes: Vec<Attribute>,
    version: String,
    missing_isolation: Vec<String>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Attribute {
    name: String,
    value: Fact,
}

#[derive(Archive, Serialize, Deserialize)]
enum Fact {
    Scalar(i64),
    Ranges(Vec<(u64, u64)>),
    Text(String),
}

#[derive(Archive, Serialize, Deserialize)]
struct Resource {
    name: String,
    reservations: Vec<Reservation>,
    is_revocable: bool,
    value: Value,
}

#[derive(Archive, Serialize, Deserialize)]
struct Reservation {
    is_dynamic: bool,
    role: String,
    principal: Option<String>,
    labels: Vec<(String, Option<String>)>,
}

#[derive(Archive, Serialize, Deserialize)]
enum Value {
    Scalar(u64),
    Ranges(Vec<(u64, u64)>),
    Set(Vec<String>),
}

impl From<&AgentRecord> for Agent {
    fn from(record: &AgentRecord) -> Self {
        Self {
            id: record.id.as_str().to_owned(),
            certificate: record.certificate,
            join_nonce: record.join_nonce.0,
            info: Info::from(&*record.info),
            admission: match record.admission {
                ModelAdmission::Active => Admission::Active,
                ModelAdmission::Unreachable { since } => Admission::Unreachable(since.0),
                ModelAdmission::Gone { since } => Admission::Gone(since.0),
            },
            is_deactivated: record.is_deactivated,
            is_revoked: record.is_revoked,
            admitted: record.admitted.0,
            ratchet_token: record.ratchet_token.map(|token| token.0),
        }
    }
}

impl Agent {
    pub(super) fn into_model(self) -> Result<AgentRecord, RecordError> {
        Ok(AgentRecord {
            id: AgentId::parse(&self.id).map_err(RecordError::damaged)?,
            certificate: self.certificate,
            join_nonce: Uuid(self.join_nonce),
            info: Arc::new(self.info.into_model()?),
            admission: match self.admission {
                Admission::Active => ModelAdmission::Active,
                Admission::Unreachable(since) => ModelAdmission::Unreachable { since: WallTime(since) },
                Admission::Gone(since) => ModelAdmission::Gone { since: WallTime(since) },
            },
            is_deactivated: self.is_deactivated,
            is_revoked: self.is_revoked,
            admitted: WallTime(self.admitted),
            ratchet_token: self.ratchet_token.map(Uuid),
        })
    }
}

impl From<&AgentInfo> for Info {
    fn from(info: &AgentInfo) -> Self {
        Self {
            hostname: info.hostname.to_string(),
            ip: info.ip.to_string(),
            port: info.port,
            total: info.total.iter().map(Resource::from).collect(),
            attributes: info.attributes.iter().map(Attribute::from).collect(),
            version: info.version.to_string(),
            missing_isolation: info.missing_isolation.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Info {
    fn into_model(self) -> Result<AgentInfo, RecordError> {
        let total = self.total.into_iter().map(Resource::into_model).collect::<Result<Vec<_>, _>>()?;
        Ok(AgentInfo {
            hostname: self.hostname.into(),
            ip: self.ip.into(),
            port: self.port,
            total: Resources::collect(total).map_err(RecordError::damaged)?,
            attributes: self.attributes.into_iter().map(Attribute::into_model).collect::<Result<_, _>>()?,
            version: self.version.into(),
            missing_isolation: self.missing_isolation.into_iter().map(Arc::from).collect(),
        })
    }
}

impl From<&ModelAttribute> for Attribute {
    fn from(attribute: &ModelAttribute) -> Self {
        let value = match &attribute.value {
            AttributeValue::Scalar(number) => Fact::Scalar(*number),
            AttributeValue::Ranges(ranges) => Fact::Ranges(ranges.pairs().to_vec()),
            AttributeValue::Text(text) => Fact::Text(text.to_string()),
        };
        Self { name: attribute.name.to_string(), value }
    }
}

impl Attribute {
    fn into_model(self) -> Result<ModelAttribute, RecordError> {
        let value = match self.value {
            Fact::Scalar(number) => AttributeValue::Scalar(number),
            Fact::Ranges(pairs) => AttributeValue::Ranges(ranges(pairs)?),
            Fact::Text(text) => AttributeValue::Text(text.into()),
        };
        Ok(ModelAttribute { name: self.name.into(), value })
    }
}

impl From<&ModelResource> for Resource {
    fn from(resource: &ModelResource) -> Self {
        Self {
            name: resource.key.name.as_str().to_owned(),
            reservations: resource.key.reservations.iter().map(Reservation::from).collect(),
            is_revocable: resource.key.is_revocable,
            value: match &resource.value {
                ModelValue::Scalar(amount) => Value::Scalar(amount.0),
                ModelValue::Ranges(ranges) => Value::Ranges(ranges.pairs().to_vec()),
                ModelValue::Set(items) => Value::Set(items.iter().map(ToString::to_string).collect()),
            },
        }
    }
}

impl Resource {
    fn into_model(self) -> Result<ModelResource, RecordError> {
        let reservations = self.reservations.into_iter().map(Reservation::into_model).collect::<Result<_, _>>()?;
        let key = ResourceKey { name: ResourceName::new(&self.name), reservations, is_revocable: self.is_revocable };
        let value = match self.value {
            Value::Scalar(amount) => ModelValue::Scalar(Milli(amount)),
            Value::Ranges(pairs) => ModelValue::Ranges(ranges(pairs)?),
            Value::Set(items) => ModelValue::Set(items.into_iter().map(Arc::from).collect::<BTreeSet<_>>()),
        };
        Ok(ModelResource { key, value })
    }
}

impl From<&ModelReservation> for Reservation {
    fn from(reservation: &ModelReservation) -> Self {
        let label =
            |(key, value): &(Arc<str>, Option<Arc<str>>)| (key.to_string(), value.as_deref().map(str::to_owned));
        Self {
            is_dynamic: match reservation.kind {
                ReservationKind::Dynamic => true,
                ReservationKind::Static => false,
            },
            role: reservation.role.as_str().to_owned(),
            principal: reservation.principal.as_deref().map(str::to_owned),
            labels: reservation.labels.iter().map(label).collect(),
        }
    }
}

impl Reservation {
    fn into_model(self) -> Result<ModelReservation, RecordError> {
        Ok(ModelReservation {
            kind: if self.is_dynamic { ReservationKind::Dynamic } else { ReservationKind::Static },
            role: Role::parse(&self.role).map_err(RecordError::damaged)?,
            principal: self.principal.map(Arc::from),
            labels: self.labels.into_iter().map(|(key, value)| (Arc::from(key), value.map(Arc::from))).collect(),
        })
    }
}

fn ranges(pairs: Vec<(u64, u64)>) -> Result<Ranges, RecordError> {
    Ranges::new(pairs).ok_or_else(|| RecordError::damaged("a range ends before it begins"))
}
