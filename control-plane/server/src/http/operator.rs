//! The operator API, `POST /api/v1`: checks of the HTTP request in Mesos's order, then an answer out of the picture.

use super::scheduler::refuse;
use super::{Call, Http, Reply, empty, forward, method_not_allowed, plain, reply_to, typed};
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
        OperatorCall::SetLoggingLevel { .. } => not_yet("SET_LOGGING_LEVEL; start the control plane with --log LEVEL"),
        OperatorCall::UpdateWeights(_) => not_yet("UPDATE_WEIGHTS"),
        OperatorCall::Subscribe => not_yet("SUBSCRIBE on the operator API; poll GET_STATE"),
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
