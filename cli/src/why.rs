//! `muster why`: the last decisions on a framework, a task or an agent, and their reasons.

use muster_http_api::muster_v1::{Why, count};
use serde_json::Value;

use crate::{
    api::{Api, ApiError},
    arguments::{self, Output},
    endpoints,
    find::{self, FindError},
    moment::ago,
};

/// The answer's text. The id may be that of a framework, a task or an agent, or a task's name, looked for in this order.
pub(crate) async fn why(api: &Api, options: &arguments::Why) -> Result<String, FindError> {
    let mut answer: Result<Value, _> = endpoints::why(api, "frameworks", &options.id).await;
    for kind in ["tasks", "agents"] {
        if answer.as_ref().is_err_and(find::is_unknown) {
            answer = endpoints::why(api, kind, &options.id).await;
        }
    }
    if answer.as_ref().is_err_and(find::is_unknown)
        && let Some((id, framework_id)) = find::named(api, &options.id, None).await?
    {
        answer = endpoints::why_task(api, &id, &framework_id).await;
    }
    let value = answer?;
    if options.list.output == Output::Json {
        return Ok(format!("{value:#}\n"));
    }
    let why: Why = serde_json::from_value(value)
        .map_err(|source| ApiError::Misfit { what: format!("why {}", options.id), source })?;
    Ok(text(&why))
}

fn text(why: &Why) -> String {
    let mut lines = vec![why.subject.clone(), format!("  {}", why.summary)];
    lines.extend(decisions(why));
    lines.extend(why.history.iter().map(|happening| format!("  {}: {}", ago(happening.at), happening.what)));
    lines.push(String::new());
    lines.join("\n")
}

/// The lines that say why there are no more offers.
pub(crate) fn reasons(why: &Why) -> Vec<String> {
    std::iter::once(format!("  {}", why.summary)).chain(decisions(why)).collect()
}

fn decisions(why: &Why) -> Vec<String> {
    let mut lines = Vec::new();
    for decision in &why.decisions {
        lines.push(format!(
            "  role {}: {} {}, share of the cluster {:.2} %",
            decision.role,
            count(decision.offer_count, "offer"),
            ago(decision.at),
            decision.share_percent
        ));
        for skip in &decision.skips {
            let example = skip.example_agent.as_deref().map(|id| format!(", for example {id}")).unwrap_or_default();
            lines.push(format!("    {} on {}{example}", skip.reason, count(skip.agent_count, "agent")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_are_shown_with_their_numbers() {
        for (count, noun) in [(3, "agents"), (1, "agent")] {
            let why = json!({"subject": "framework f (n)", "summary": "connected, 0 open offers", "history": [],
                "decisions": [{"role": "*", "at": 0.0, "offer_count": count, "share_percent": 12.5,
                    "skips": [{"reason": "filtered by a decline", "agent_count": count, "example_agent": "a1"}]}]});
            let text = text(&serde_json::from_value(why).unwrap());
            let begin = format!(
                "framework f (n)\n  connected, 0 open offers\n  role *: {count} {} ",
                noun.replace("agent", "offer")
            );
            assert!(text.starts_with(&begin), "{text}");
            let end =
                format!("share of the cluster 12.50 %\n    filtered by a decline on {count} {noun}, for example a1\n");
            assert!(text.ends_with(&end), "{text}");
        }
    }
}
