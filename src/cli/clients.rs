//! `tidegate clients`: who is connected or has a session, and sending one away.

use clap::{Args, Subcommand};

use super::{ConfigFile, End, human, out, source, with_config};
use crate::api::{Kick, Kicked};
use crate::app::{self, Held};
use crate::config::Config;
use crate::proxy::clients::{ClientInfo, ClientsPage};

/// `tidegate clients …`
#[derive(Debug, Args)]
pub(super) struct Asked {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON, a line a client.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List them; so without a word, too.
    Ls,
    /// End a client's connection; it may come back.
    Kick {
        /// Its client id.
        client_id: String,
        /// Forget its session too: subscriptions and what waits for it.
        #[arg(long)]
        forget: bool,
    },
}

/// Asks the gateway.
pub(super) fn clients(asked: &Asked) -> End {
    with_config(&asked.file, |config| answer(config, asked))
}

fn answer(config: &Config, asked: &Asked) -> anyhow::Result<End> {
    if let Held::ByNobody(_) = app::lock_to_look(&config.gateway.data_dir)? {
        out::line("no gateway runs, so nobody is connected");
        return Ok(End::Found);
    }
    let api = source::running(config)?;
    if let Some(What::Kick { client_id, forget }) = &asked.what {
        let body = Kick {
            client_id: client_id.clone(),
            forget: *forget,
        };
        let Kicked { client_id } = api.post("/tidegate/clients/kick", &body)?;
        out::line(format_args!("{client_id} is sent away"));
        return Ok(End::Done);
    }
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page: ClientsPage = api.get("/tidegate/clients", &[("after", &after)])?;
        all.extend(page.clients);
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    if asked.json {
        for client in &all {
            out::line(serde_json::to_string(client)?);
        }
    } else {
        out::line(list(&all));
    }
    Ok(End::Done)
}

fn list(clients: &[ClientInfo]) -> String {
    let row = |client: &ClientInfo| {
        let connection = client.connection.as_ref();
        let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let state = match (connection, client.expires_in_seconds) {
            (Some(connection), _) => human::seconds(connection.seconds as f64),
            (None, Some(left)) => format!("away, kept for {}", human::seconds(left as f64)),
            (None, None) => "leaving".to_owned(),
        };
        vec![
            printable(&client.client_id),
            shown(connection.and_then(|it| it.user.as_deref()).map(printable)),
            shown(connection.map(|it| it.address.clone())),
            shown(connection.map(|it| it.mqtt.clone())),
            state,
            client.subscriptions.to_string(),
            human::count(client.queued_messages as u64),
            human::count(client.unacknowledged_messages as u64),
        ]
    };
    let rows: Vec<_> = clients.iter().map(row).collect();
    let head = [
        "client",
        "user",
        "address",
        "mqtt",
        "connected",
        "filters",
        "queued",
        "on the way",
    ];
    let connected = clients.iter().filter(|client| client.connection.is_some());
    let (connected, all) = (connected.count() as u64, clients.len() as u64);
    format!(
        "{}\n{} connected, {} away",
        human::table(&head, &rows),
        human::count(connected),
        human::count(all - connected)
    )
}

/// What a terminal would obey is not shown as it is.
fn printable(name: &str) -> String {
    name.replace(char::is_control, "?")
}
