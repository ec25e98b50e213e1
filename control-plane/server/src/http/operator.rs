//! The operator API, `POST /api/v1`: checks of the HTTP request in Mesos's order, then an answer out of the picture.

use super::agents::{self, Reactivated};
use super::scheduler::refuse;
use super::{Call, Http, Reply, empty, forward, method_not_allowed, plain, reply_to, typed};
use crate::admin::AdminError;
use crate::event::Event;
use crate::event_loop::wall_now;
use hyper::{Method, StatusCode};
use muster_home_engine::io::Answer;
use muster_http_api::mesos_v1::content::Encoding;
use muster_http_api::mesos_v1::operator::{self, Call as OperatorCall, Metrics, Question};

pub(super) async fn answer(http: &Http, call: &Call) -> Reply {
    if call.method != Method::POST {
        return method_not_allowed(&["POST"], &call.method);
    }
    http.metrics.operator_call();
    let decoded = Encoding::of_content_type(call.header("content-type"))
        .and_then(|encoding| operator::decode_call(encoding, &call.body));
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(refusal) => return refuse(refusal),
    };
    let encoding = match Encoding::of_accept(call.header("accept")) {
        Ok(encoding) => encoding,
        Err(refusal) => return refuse(refusal),
    };
    match decoded {
        OperatorCall::Ask(question) => ask(http, call, question, encoding).await,
        OperatorCall::Teardown(framework_id) => {
            if let Some(reply) = forward::teardown(http, call, &framework_id).await {
                return reply;
            }
            match http.ask(|reply| Event::OperatorTeardown { framework_id, reply }).await {
                // A removal is a change that was made, not a receipt.
                Ok(Answer::Accepted) => empty(StatusCode::OK),
                Ok(answer) => reply_to(answer),
                Err(reply) => reply,
            }
        }
        OperatorCall::DeactivateAgent(agent_id) => match http.admin.deactivate_agent(&agent_id).await {
            Ok(()) => empty(StatusCode::OK),
            Err(error) => refused(&error, "Unknown agent"),
        },
        OperatorCall::ReactivateAgent(agent_id) => match agents::reactivate(http, call, &agent_id).await {
            Ok(Reactivated::Done) => empty(StatusCode::OK),
            // As in Mesos: the change is stored all the same.
            Ok(Reactivated::Later) => plain(StatusCode::CONFLICT, "Agent removed while processing the call"),
            Ok(Reactivated::WasActive) => plain(StatusCode::BAD_REQUEST, NOT_DEACTIVATED),
            Ok(Reactivated::Refuses(why)) => plain(StatusCode::BAD_REQUEST, format!("{NOT_DEACTIVATED}: {why}")),
            Ok(Reactivated::Answered(reply)) => reply,
            Err(error) => refused(&error, NOT_DEACTIVATED),
        },
        OperatorCall::SetLoggingLevel { .. } => not_yet("SET_LOGGING_LEVEL; start the control plane with --log LEVEL"),
        OperatorCall::UpdateWeights(_) => not_yet("UPDATE_WEIGHTS"),
        OperatorCall::Subscribe => not_yet("SUBSCRIBE on the operator API; poll GET_STATE"),
    }
}

/// Mesos knows no doubt, so that its words are those for an agent on which offers were not stopped.
const NOT_DEACTIVATED: &str = "Agent is not deactivated";

fn refused(error: &AdminError, unknown_agent: &'static str) -> Reply {
    match error {
        AdminError::NoSuchAgent(_) => plain(StatusCode::BAD_REQUEST, unknown_agent),
        AdminError::Bad(_) | AdminError::NoSuchToken(_) | AdminError::Read(_) | AdminError::Persist(_) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, crate::sessions::Chain(error).to_string())
        }
    }
}

fn not_yet(what: &str) -> Reply {
    plain(StatusCode::NOT_IMPLEMENTED, format!("this version of Muster does not support {what}"))
}

async fn ask(http: &Http, call: &Call, question: Question, encoding: Encoding) -> Reply {
    let view = match http.view(call).await {
        Ok(view) => view,
        Err(reply) => return reply,
    };
    let values = match question {
        Question::GetMetrics => http.metrics.mesos_values(&view, http.facts.started, wall_now()),
        _ => Vec::new(),
    };
    let reply = operator::answer(question, &view, &http.facts, &Metrics { values, logging_level: 0 });
    typed(StatusCode::OK, encoding.as_str(), operator::encode(&reply, encoding))
}
