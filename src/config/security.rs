//! What secures connections to Kafka, and those of devices: keys that belong together, and the
//! files they name.
//!
//! Files are read here, so that `tidegate check` tells what is missing. A token's file may come
//! later; it is only warned of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::check::Reader;
use super::problem::Problem;
use crate::access::{Rules, Watched};
use crate::kafka::security::Security;
use crate::kafka::security::sasl::oauth::{Tokens, is_extension};
use crate::kafka::security::sasl::oidc::{Client, Provider};
use crate::kafka::security::sasl::{Hash, Login, Sasl};
use crate::kafka::security::tls::{Files, Tls};
use crate::secret::Source;
use crate::tls::Unfit;
use crate::tls::server::{self, Server};

const TLS: &str = "kafka.tls";
const SASL: &str = "kafka.sasl";

/// Reads both tables.
pub(super) fn security(r: &mut Reader<'_>) -> Security {
    let has = |r: &Reader<'_>, table| r.raw.has(table) && !r.raw.is_refused(table);
    Security {
        tls: has(r, TLS).then(|| tls(r)).flatten().map(Into::into),
        sasl: has(r, SASL).then(|| sasl(r)).flatten().map(Into::into),
    }
}

fn refuse(r: &mut Reader<'_>, table: &str, unfit: Unfit) {
    let key = format!("{table}.{}", unfit.key);
    if !r.raw.is_refused(&key) {
        let place = r.raw.place(&key);
        let problem = Problem::new(place, key, unfit.found, unfit.right);
        r.problems.push(problem);
    }
}

fn unfit(key: &'static str, found: impl Into<String>, right: impl Into<String>) -> Unfit {
    Unfit {
        key,
        found: found.into(),
        right: right.into(),
    }
}

fn tls(r: &mut Reader<'_>) -> Option<Tls> {
    let cert_file = r.maybe_path("kafka.tls.cert_file");
    let key_file = r.maybe_path("kafka.tls.key_file");
    let ca_file = r.maybe_path("kafka.tls.ca_file");
    let server_name = r.maybe_text("kafka.tls.server_name");
    let lacks = |key, other: &str| unfit(key, "missing", format!("set it, or leave out {other}"));
    let identity = match (cert_file, key_file) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(lacks("key_file", "cert_file")),
        (None, Some(_)) => Err(lacks("cert_file", "key_file")),
    };
    let made = identity.and_then(|identity| {
        let files = Files { ca_file, identity };
        Tls::new(files, server_name.as_deref(), "ca_file")
    });
    made.map_err(|unfit| refuse(r, TLS, unfit)).ok()
}

/// TLS of a listener: its certificate and key, and whom it trusts.
pub(super) fn server(r: &mut Reader<'_>, table: &str) -> Option<Server> {
    let mut path = |key: &str| r.maybe_path(&format!("{table}.{key}"));
    let (cert_file, key_file) = (path("cert_file"), path("key_file"));
    let client_ca_file = path("client_ca_file");
    let lacks = |key, other: &str| unfit(key, "missing", format!("set it, or leave out {other}"));
    let made = match (cert_file, key_file) {
        (None, None) if client_ca_file.is_none() => return None,
        (Some(cert_file), Some(key_file)) => Server::new(server::Files {
            cert_file,
            key_file,
            client_ca_file,
        }),
        (Some(_), None) => Err(lacks("key_file", "cert_file")),
        (None, Some(_)) => Err(lacks("cert_file", "key_file")),
        (None, None) => Err(lacks("cert_file", "client_ca_file")),
    };
    made.map_err(|unfit| refuse(r, table, unfit)).ok()
}

/// A file of rules of a listener.
pub(super) fn rules<R: Rules>(r: &mut Reader<'_>, table: &str) -> Option<Arc<Watched<R>>> {
    let path = r.maybe_path(&format!("{table}.{}", R::KEY))?;
    let opened = Watched::open(path).map(Arc::new);
    opened.map_err(|unfit| refuse(r, table, unfit)).ok()
}

/// What was typed in `[kafka.sasl]`.
struct Typed {
    mechanism: String,
    username: Option<String>,
    password: Option<Source>,
    token_file: Option<PathBuf>,
    token_url: Option<String>,
    token_ca_file: Option<PathBuf>,
    client_id: Option<String>,
    client_secret: Option<Source>,
    scope: Option<String>,
    extensions: Vec<(String, String)>,
}

fn sasl(r: &mut Reader<'_>) -> Option<Sasl> {
    let typed = Typed {
        mechanism: r.text("kafka.sasl.mechanism"),
        username: r.maybe_text("kafka.sasl.username"),
        password: r.secret("kafka.sasl.password"),
        token_file: r.maybe_path("kafka.sasl.token_file"),
        token_url: r.maybe_text("kafka.sasl.token_url"),
        token_ca_file: r.maybe_path("kafka.sasl.token_ca_file"),
        client_id: r.maybe_text("kafka.sasl.client_id"),
        client_secret: r.secret("kafka.sasl.client_secret"),
        scope: r.maybe_text("kafka.sasl.scope"),
        extensions: r.map("kafka.sasl.extensions"),
    };
    if typed.mechanism.is_empty() {
        return None; // missing or refused: told already
    }
    let mut wrong = strangers(r, &typed);
    if !r.raw.has(TLS) && !typed.mechanism.starts_with("SCRAM") {
        r.warnings.push(format!(
            "kafka.sasl: {} without [kafka.tls] shows the credentials to the network",
            typed.mechanism
        ));
    }
    if let Some(path) = &typed.token_file
        && let Err(error) = Source::File(path.clone()).fetch()
    {
        r.warnings.push(format!("kafka.sasl.token_file: {error}"));
    }
    let sasl = match typed.mechanism.as_str() {
        "PLAIN" => login(typed).map(Sasl::Plain),
        "SCRAM-SHA-256" => login(typed).map(|login| Sasl::Scram(Hash::Sha256, login)),
        "SCRAM-SHA-512" => login(typed).map(|login| Sasl::Scram(Hash::Sha512, login)),
        _ => bearer(typed),
    };
    let sasl = sasl.map_err(|all| wrong.extend(all)).ok();
    let right = wrong.is_empty();
    for unfit in wrong {
        refuse(r, SASL, unfit);
    }
    sasl.filter(|_| right)
}

/// Keys that the mechanism has no use for.
fn strangers(r: &Reader<'_>, typed: &Typed) -> Vec<Unfit> {
    const BEARER: &[&str] = &[
        "token_file",
        "token_url",
        "token_ca_file",
        "client_id",
        "client_secret",
        "scope",
        "extensions",
    ];
    const PROVIDER: &[&str] = &["token_ca_file", "client_id", "client_secret", "scope"];
    let mechanism = typed.mechanism.as_str();
    let (keys, right) = match mechanism {
        "OAUTHBEARER" => (
            &["username", "password"][..],
            "leave it out, or write mechanism = \"PLAIN\" or SCRAM",
        ),
        _ => (BEARER, "leave it out, or write mechanism = \"OAUTHBEARER\""),
    };
    let typed_key = |key: &&&str| r.raw.has(&format!("{SASL}.{key}"));
    let strange = keys.iter().filter(typed_key);
    let mut wrong: Vec<_> = strange
        .map(|key| unfit(key, format!("{mechanism} has no use for it"), right))
        .collect();
    if mechanism == "OAUTHBEARER" && typed.token_file.is_some() {
        let strange = PROVIDER.iter().filter(typed_key);
        wrong.extend(strange.map(|key| {
            unfit(
                key,
                "a token_file has no use for it",
                "leave it out, or write token_url",
            )
        }));
    }
    wrong
}

fn login(typed: Typed) -> Result<Login, Vec<Unfit>> {
    let needed = |key| unfit(key, "missing", format!("{} needs it", typed.mechanism));
    match (typed.username, typed.password) {
        (Some(username), Some(password)) => {
            fetched("password", &password)?;
            Ok(Login { username, password })
        }
        (username, password) => Err([
            username.is_none().then(|| needed("username")),
            password.is_none().then(|| needed("password")),
        ]
        .into_iter()
        .flatten()
        .collect()),
    }
}

fn fetched(key: &'static str, secret: &Source) -> Result<(), Vec<Unfit>> {
    let right = "write text, { file = \"path\" } or { env = \"VARIABLE\" }";
    match secret.fetch() {
        Ok(_) => Ok(()),
        Err(error) => Err(vec![unfit(key, error.to_string(), right)]),
    }
}

fn bearer(typed: Typed) -> Result<Sasl, Vec<Unfit>> {
    let mut extensions = BTreeMap::new();
    for (name, value) in typed.extensions {
        if !is_extension(&name, &value) {
            let found = format!("found {name:?}");
            let right = "write names of letters, not auth, and printable texts";
            return Err(vec![unfit("extensions", found, right)]);
        }
        extensions.insert(name, value);
    }
    let tokens = match (typed.token_file, typed.token_url) {
        (Some(file), None) => Tokens::File(file),
        (None, Some(url)) => {
            let needed = |key| vec![unfit(key, "missing", "token_url needs it")];
            let id = typed.client_id.ok_or_else(|| needed("client_id"))?;
            let secret = typed.client_secret.ok_or_else(|| needed("client_secret"))?;
            fetched("client_secret", &secret)?;
            let client = Client {
                id,
                secret,
                scope: typed.scope,
            };
            let files = Files {
                ca_file: typed.token_ca_file,
                identity: None,
            };
            let tls = || Tls::new(files, None, "token_ca_file");
            Tokens::Provider(Box::new(
                Provider::new(&url, client, tls).map_err(|unfit| vec![unfit])?,
            ))
        }
        (file, _) => {
            let (found, right) = match file {
                Some(_) => ("set beside token_file", "leave one of the two out"),
                None => ("missing", "OAUTHBEARER needs it, or token_file"),
            };
            return Err(vec![unfit("token_url", found, right)]);
        }
    };
    Ok(Sasl::OauthBearer { tokens, extensions })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Problems, RouteReport, parse};

    fn read(text: &str) -> Result<(Config, Vec<String>), Problems> {
        let text = format!("[kafka]\nbootstrap_servers = [\"k:9092\"]\n{text}");
        let routes = |_: &_| RouteReport::default();
        let loaded = parse(
            (Path::new("t.toml"), &text),
            None,
            std::iter::empty(),
            routes,
        )?;
        Ok((loaded.config, loaded.warnings))
    }

    fn refused(text: &str) -> Vec<String> {
        let problems = read(text).unwrap_err().to_string();
        problems.lines().map(str::to_owned).collect()
    }

    #[test]
    fn combinations_that_cannot_work_are_refused() {
        let sasl = "[kafka.sasl]\nmechanism = ";
        for (text, words) in [
            ("'PLAIN'", "kafka.sasl.username: missing; PLAIN needs it"),
            (
                "'PLAIN'\nusername = 'a'",
                "t.toml:3: kafka.sasl.password: missing; PLAIN needs it",
            ),
            (
                "'PLAIN'\nusername = 'a'\npassword = { env = \"TIDEGATE_NO_SUCH\" }",
                "t.toml:6: kafka.sasl.password: environment variable TIDEGATE_NO_SUCH is not set",
            ),
            (
                "'SCRAM-SHA-256'\nusername = 'a'\npassword = 'b'\nscope = 'x'",
                "t.toml:7: kafka.sasl.scope: SCRAM-SHA-256 has no use for it; leave it out",
            ),
            (
                "'OAUTHBEARER'",
                "kafka.sasl.token_url: missing; OAUTHBEARER needs it, or token_file",
            ),
            (
                "'OAUTHBEARER'\ntoken_file = '/x'\ntoken_url = 'https://y/'",
                "t.toml:6: kafka.sasl.token_url: set beside token_file; leave one",
            ),
            (
                "'OAUTHBEARER'\ntoken_file = '/x'\nclient_id = 'y'",
                "t.toml:6: kafka.sasl.client_id: a token_file has no use for it",
            ),
            (
                "'OAUTHBEARER'\ntoken_file = '/x'\nusername = 'y'",
                "t.toml:6: kafka.sasl.username: OAUTHBEARER has no use for it",
            ),
            (
                "'OAUTHBEARER'\ntoken_url = 'http://127.0.0.1/'\nclient_secret = 'y'",
                "kafka.sasl.client_id: missing; token_url needs it",
            ),
            (
                "'OAUTHBEARER'\ntoken_url = 'http://idp/'\nclient_id = 'x'\n\
                 client_secret = 'hunter2'",
                "t.toml:5: kafka.sasl.token_url: \"http://idp/\" would tell the secret",
            ),
            (
                "'OAUTHBEARER'\ntoken_file = '/x'\nextensions = { auth = 'x' }",
                "found \"auth\"",
            ),
            (
                "'SCRAM-SHA-1'",
                "t.toml:4: kafka.sasl.mechanism: found \"SCRAM-SHA-1\"; did you mean",
            ),
        ] {
            let told = refused(&format!("{sasl}{text}\n")).join("\n");
            assert!(told.contains(words), "{text}: {told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        let told = refused("[kafka.tls]\ncert_file = '/x'\n");
        assert_eq!(
            told,
            ["t.toml:3: kafka.tls.key_file: missing; set it, or leave out cert_file"]
        );
        let told = refused("[kafka.tls]\nca_file = '/nowhere/ca'\n").join("");
        assert!(
            told.starts_with("t.toml:4: kafka.tls.ca_file: cannot read /nowhere/ca"),
            "{told}"
        );
        let told = refused("[kafka.sasl]\nusername = 'x'\n").join("");
        assert!(
            told.contains("kafka.sasl.mechanism: missing; set it: How it is said"),
            "{told}"
        );
    }

    #[test]
    fn a_listener_s_files_go_together() {
        let listener = "[proxy]\n[[proxy.listener]]\nlisten = '127.0.0.1:8883'\n";
        for (text, words) in [
            (
                "cert_file = '/x'",
                "key_file: missing; set it, or leave out cert_file",
            ),
            (
                "client_ca_file = '/x'",
                "cert_file: missing; set it, or leave out client_ca_file",
            ),
            (
                "cert_file = '/x'\nkey_file = '/x'",
                "cert_file: cannot read /x",
            ),
        ] {
            let told = refused(&format!("{listener}{text}\n")).join("\n");
            let key = format!("proxy.listener[0].{words}");
            assert!(told.contains(&key), "{text}: {told}");
        }
    }

    #[test]
    fn secrets_are_not_shown_and_open_ones_warned_of() {
        let text = "[kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'a'\npassword = 'hunter2'\n";
        let (config, warnings) = read(text).unwrap();
        assert!(config.kafka.security.sasl.is_some() && config.kafka.security.tls.is_none());
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].contains("shows the credentials to the network"),
            "{warnings:?}"
        );
        assert!(!format!("{config:?}").contains("hunter2"));
        let (_, warnings) = read(&text.replace("PLAIN", "SCRAM-SHA-512")).unwrap();
        assert_eq!(warnings, [""; 0]);
        let text = "[kafka.sasl]\nmechanism = 'OAUTHBEARER'\ntoken_file = '/nowhere/token'\n";
        let (_, warnings) = read(text).unwrap();
        assert!(
            warnings[1].contains("cannot read /nowhere/token"),
            "{warnings:?}"
        );
    }
}
