//! Replies to operator calls, out of the cluster's picture.

use muster_model::resource::{ResourceName, Resources};
use muster_model::view::{AgentView, ClusterView, FrameworkView, RoleView};
use muster_model::{Milli, Role};

use super::Question;
use super::json::encode_response;
use crate::mesos_v1::content::Encoding;
use crate::mesos_v1::facts::{Facts, master_info, seconds, time_info, version_info};
use crate::mesos_v1::framework::framework_info_to_wire;
use crate::mesos_v1::picture::{AGENT_CAPABILITIES, ByRole, Picture, agent_pid, is_active, offered_on, used_on};
use crate::mesos_v1::resource::{Form, append_resources, attributes_to_wire, resources_to_wire, scalar_to_wire};
use crate::mesos_v1::scheduler::offer_to_wire;
use crate::mesos_v1::task::task_to_wire;
use crate::proto::master::Response;
use crate::proto::master::response::{self, get_agents, get_frameworks};
use crate::proto::scheduler::OfferConstraints;
use crate::proto::{self, agent_info, quota, value};
use muster_model::framework::Capabilities;

/// What GET_METRICS and GET_LOGGING_LEVEL answer with; the server counts, this crate only writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Metrics by name.
    pub values: Vec<(String, f64)>,
    /// How much is logged; 0 is the usual level.
    pub logging_level: u32,
}

/// The bytes of a reply.
pub fn encode(reply: &Response, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Json => encode_response(reply),
        Encoding::Protobuf => prost::Message::encode_to_vec(reply),
    }
}

/// The reply to a question.
pub fn answer(question: Question, view: &ClusterView, facts: &Facts, metrics: &Metrics) -> Response {
    let mut reply = Response::default();
    let kind = match question {
        Question::GetHealth => {
            reply.get_health = Some(response::GetHealth { healthy: true });
            response::Type::GetHealth
        }
        Question::GetFlags => {
            let flags = facts.flags.iter();
            let flags = flags.map(|(name, value)| proto::Flag { name: name.clone(), value: Some(value.clone()) });
            reply.get_flags = Some(response::GetFlags { flags: flags.collect() });
            response::Type::GetFlags
        }
        Question::GetVersion => {
            reply.get_version = Some(response::GetVersion { version_info: version_info(&facts.build) });
            response::Type::GetVersion
        }
        Question::GetMetrics => {
            let mut values: Vec<proto::Metric> = metrics
                .values
                .iter()
                .map(|(name, value)| proto::Metric { name: name.clone(), value: Some(*value) })
                .collect();
            values.sort_by(|left, right| left.name.cmp(&right.name));
            reply.get_metrics = Some(response::GetMetrics { metrics: values });
            response::Type::GetMetrics
        }
        Question::GetLoggingLevel => {
            reply.get_logging_level = Some(response::GetLoggingLevel { level: metrics.logging_level });
            response::Type::GetLoggingLevel
        }
        Question::GetState => {
            let picture = Picture::new(view);
            reply.get_state = Some(response::GetState {
                get_tasks: Some(tasks(&picture)),
                get_executors: Some(response::GetExecutors::default()),
                get_frameworks: Some(frameworks(&picture)),
                get_agents: Some(agents(&picture)),
            });
            response::Type::GetState
        }
        Question::GetAgents => {
            reply.get_agents = Some(agents(&Picture::new(view)));
            response::Type::GetAgents
        }
        Question::GetFrameworks => {
            reply.get_frameworks = Some(frameworks(&Picture::new(view)));
            response::Type::GetFrameworks
        }
        Question::GetExecutors => {
            // Executors of command tasks are not listed, and frameworks bring no others yet.
            reply.get_executors = Some(response::GetExecutors::default());
            response::Type::GetExecutors
        }
        Question::GetOperations => {
            reply.get_operations = Some(response::GetOperations::default());
            response::Type::GetOperations
        }
        Question::GetTasks => {
            reply.get_tasks = Some(tasks(&Picture::new(view)));
            response::Type::GetTasks
        }
        Question::GetRoles => {
            let roles = view.allocator.roles.iter().map(|(name, role)| role_to_wire(name, role));
            reply.get_roles = Some(response::GetRoles { roles: roles.collect() });
            response::Type::GetRoles
        }
        Question::GetWeights => {
            let weights: Vec<proto::WeightInfo> = view
                .allocator
                .roles
                .iter()
                .filter(|(_, role)| role.has_weight)
                .map(|(name, role)| proto::WeightInfo {
                    role: Some(name.to_string()),
                    weight: scalar_to_wire(role.weight),
                })
                .collect();
            // Mesos leaves the whole part out when no weight was set.
            reply.get_weights = (!weights.is_empty()).then_some(response::GetWeights { weight_infos: weights });
            response::Type::GetWeights
        }
        Question::GetMaster => {
            reply.get_master = Some(response::GetMaster {
                master_info: Some(master_info(&facts.introduction)),
                start_time: Some(seconds(facts.started)),
                elected_time: Some(seconds(facts.elected)),
            });
            response::Type::GetMaster
        }
        Question::GetMaintenanceStatus => {
            reply.get_maintenance_status = Some(response::GetMaintenanceStatus::default());
            response::Type::GetMaintenanceStatus
        }
        Question::GetMaintenanceSchedule => {
            reply.get_maintenance_schedule = Some(response::GetMaintenanceSchedule::default());
            response::Type::GetMaintenanceSchedule
        }
        Question::GetQuota => {
            reply.get_quota = Some(response::GetQuota { status: quota::QuotaStatus::default() });
            response::Type::GetQuota
        }
    };
    reply.r#type = Some(kind.into());
    reply
}

fn tasks(picture: &Picture<'_>) -> response::GetTasks {
    let mut reply = response::GetTasks::default();
    for (framework, holdings) in picture.all_holdings() {
        let is_aware = picture.is_partition_aware(framework);
        reply.tasks.extend(holdings.tasks.iter().map(|task| task_to_wire(task, is_aware)));
        reply.unreachable_tasks.extend(holdings.unreachable.iter().map(|task| task_to_wire(task, is_aware)));
        reply.completed_tasks.extend(holdings.completed.iter().map(|task| task_to_wire(task, is_aware)));
    }
    reply
}

fn frameworks(picture: &Picture<'_>) -> response::GetFrameworks {
    response::GetFrameworks {
        frameworks: picture.frameworks().map(|framework| framework_to_wire(framework, picture)).collect(),
        completed_frameworks: picture
            .completed_frameworks()
            .map(|framework| framework_to_wire(framework, picture))
            .collect(),
        recovered_frameworks: Vec::new(),
    }
}

fn framework_to_wire(framework: &FrameworkView, picture: &Picture<'_>) -> get_frameworks::Framework {
    let holdings = picture.holdings(&framework.info.id);
    // Readers get offers in the newer form, whatever the framework itself can handle.
    let form = Capabilities { multi_role: true, reservation_refinement: true, ..framework.info.capabilities };
    get_frameworks::Framework {
        framework_info: framework_info_to_wire(&framework.info),
        active: framework.is_active,
        connected: framework.is_connected,
        recovered: framework.is_recovered,
        registered_time: Some(time_info(framework.registered)),
        reregistered_time: Some(time_info(framework.reregistered.unwrap_or(framework.registered))),
        unregistered_time: framework.unregistered.map(time_info),
        offers: framework.offers.values().map(|offer| offer_to_wire(offer, &form)).collect(),
        inverse_offers: Vec::new(),
        allocated_resources: holdings.map(|holdings| by_role(&holdings.used)).unwrap_or_default(),
        offered_resources: holdings.map(|holdings| by_role(&holdings.offered)).unwrap_or_default(),
        offer_constraints: Some(OfferConstraints::default()),
    }
}

fn agents(picture: &Picture<'_>) -> response::GetAgents {
    response::GetAgents {
        agents: picture.agents().map(agent_to_wire).collect(),
        recovered_agents: picture.recovered_agents().map(agent_info).collect(),
    }
}

fn agent_info(agent: &AgentView) -> proto::AgentInfo {
    proto::AgentInfo {
        hostname: agent.info.hostname.to_string(),
        port: Some(agent.info.port.into()),
        resources: resources_to_wire(&agent.info.total, None, Form::PostRefinement),
        attributes: attributes_to_wire(&agent.info.attributes),
        id: Some(proto::AgentId { value: agent.id.to_string() }),
        // Agents journal every task, which is what this says.
        checkpoint: Some(true),
        domain: None,
    }
}

fn agent_to_wire(agent: &AgentView) -> get_agents::Agent {
    let capabilities = AGENT_CAPABILITIES.iter().map(|name| agent_info::Capability {
        r#type: agent_info::capability::Type::from_str_name(name).map(Into::into),
    });
    get_agents::Agent {
        agent_info: agent_info(agent),
        active: is_active(agent),
        deactivated: Some(agent.is_deactivated),
        version: agent.info.version.to_string(),
        pid: Some(agent_pid(agent)),
        registered_time: Some(time_info(agent.registered)),
        reregistered_time: agent.reregistered.map(time_info),
        total_resources: resources_to_wire(&agent.info.total, None, Form::Endpoint),
        allocated_resources: by_role(&used_on(agent)),
        offered_resources: by_role(&offered_on(agent)),
        capabilities: capabilities.collect(),
        resource_providers: Vec::new(),
        drain_info: None,
        estimated_drain_start_time: None,
    }
}

fn by_role(sums: &ByRole) -> Vec<proto::Resource> {
    let mut list = Vec::new();
    for (role, resources) in sums {
        append_resources(&mut list, resources, Some(role), Form::Endpoint);
    }
    list
}

fn role_to_wire(name: &Role, role: &RoleView) -> proto::Role {
    // By name, as Mesos sorts them; other resources are not shown here.
    let shown = [ResourceName::Cpus, ResourceName::Disk, ResourceName::Gpus, ResourceName::Mem];
    let amount = |resources: &Resources, name: &ResourceName| resources.scalar(name);
    let resources = shown.iter().filter_map(|name| {
        let sum = amount(&role.allocated, name).plus(amount(&role.offered, name));
        (sum != Milli::ZERO).then(|| proto::Resource {
            name: name.as_str().to_owned(),
            r#type: value::Type::Scalar.into(),
            scalar: Some(value::Scalar { value: scalar_to_wire(sum) }),
            ..Default::default()
        })
    });
    proto::Role {
        name: name.to_string(),
        weight: scalar_to_wire(role.weight),
        frameworks: role.frameworks.iter().map(|id| proto::FrameworkId { value: id.to_string() }).collect(),
        resources: resources.collect(),
    }
}
