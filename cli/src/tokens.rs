//! `muster tokens`: what lets machines join.

use muster_http_api::muster_v1::NewToken;

use crate::{
    api::{Api, ApiError},
    arguments::{Output, TokensCommand},
    endpoints,
    lists::{self, Kind},
    say,
};

/// Does what was asked and returns the text for standard output.
pub(crate) async fn tokens(api: &Api, command: &TokensCommand) -> Result<String, ApiError> {
    match command {
        TokensCommand::List(list) => lists::list(api, Kind::Tokens, *list).await,
        TokensCommand::Revoke { name } => {
            endpoints::revoke_token(api, name).await?;
            Ok(format!("token {name} is revoked\n"))
        }
        TokensCommand::Create { name, uses, valid_secs, list } => {
            let limited = |number: u64| (number > 0).then_some(number);
            let uses = limited((*uses).into()).and_then(|uses| u32::try_from(uses).ok());
            let new = NewToken { name: name.clone(), uses, valid_secs: limited(*valid_secs) };
            let created = endpoints::create_token(api, &new).await?;
            if list.output == Output::Json {
                return Ok(format!("{:#}\n", serde_json::json!(created)));
            }
            let command = join_command(&created.join_address, &created.token);
            // The token alone on stdout, so that TOKEN=$(muster tokens create) holds it and nothing else.
            say(&format!("on the machine that is to join:\n  {command}"));
            Ok(format!("{}\n", created.token))
        }
    }
}

/// The command that makes a machine join.
pub(crate) fn join_command(address: &str, token: &str) -> String {
    format!("muster-agent --control-plane {address} --join {token}")
}
