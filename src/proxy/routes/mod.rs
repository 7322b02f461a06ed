//! From MQTT topics to Kafka topics, keys and headers: `[[proxy.route]]`, first match wins.
//!
//! [`Routes`] is the compiled configuration, also for `tidegate check`. [`Router`] adds what a
//! running proxy needs: the ids of the topics, and a memory of MQTT topics seen before, so that
//! they cost one look-up.

mod cache;
pub mod pattern;
mod record;
pub mod sanitise;
mod template;
#[cfg(test)]
mod tests;

use crate::config::checked::Proxy;
use crate::spool::TopicOptions;

pub use cache::{Router, Seen, Target};
pub use record::{ClientHeader, HeaderTable, Place};

use pattern::Pattern;
use template::Template;

/// The routes of a configuration, compiled.
#[derive(Clone, Debug)]
pub struct Routes {
    all: Vec<Compiled>,
    default_topic: Option<String>,
}

#[derive(Clone, Debug)]
struct Compiled {
    pattern: Pattern,
    topic: Template,
    key: Option<Template>,
    headers: Vec<(String, Template)>,
    options: TopicOptions,
}

/// What is wrong with a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proxy.route[{index}].{key}: {message}; right would be: {would_be_right}")]
pub struct RouteError {
    /// Number of the route, from 0.
    pub index: usize,
    /// Its key: `mqtt`, `topic`, `key`, `headers.NAME`.
    pub key: String,
    /// What was found.
    pub message: String,
    /// What could stand there.
    pub would_be_right: String,
}

/// Where a message goes, before the spool was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Legal name of the Kafka topic.
    pub topic: String,
    /// `None`: the MQTT topic.
    pub key: Option<String>,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What the route says of the topic.
    pub options: TopicOptions,
}

impl Routes {
    /// Compiles the routes of a configuration.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn compile(proxy: &Proxy) -> Result<Self, Vec<RouteError>> {
        let mut all = Vec::new();
        let mut errors = Vec::new();
        for (index, route) in proxy.routes.iter().enumerate() {
            let mut note = |key: &str, (message, would_be_right): (String, String)| {
                errors.push(RouteError {
                    index,
                    key: key.to_owned(),
                    message,
                    would_be_right,
                });
            };
            let pattern = match Pattern::parse(&route.mqtt) {
                Ok(pattern) => pattern,
                Err(wrong) => {
                    note("mqtt", wrong);
                    continue;
                }
            };
            let mut compile = |key: &str, text: &str| {
                let compiled = Template::parse(text, &pattern.names);
                compiled.map_err(|wrong| note(key, wrong)).ok()
            };
            let topic = compile("topic", &route.topic);
            let key = route.key.as_ref().map(|key| compile("key", key));
            let mut headers = Vec::new();
            for (name, value) in &route.headers {
                if let Some(value) = compile(&format!("headers.{name}"), value) {
                    headers.push((name.clone(), value));
                }
            }
            if let Some(topic) = topic {
                all.push(Compiled {
                    pattern,
                    topic,
                    key: key.flatten(),
                    headers,
                    options: TopicOptions {
                        priority: route.priority,
                        ttl: route.ttl,
                    },
                });
            }
        }
        if errors.is_empty() {
            Ok(Self {
                all,
                default_topic: proxy.default_topic.clone(),
            })
        } else {
            Err(errors)
        }
    }

    /// Where a message with this MQTT topic goes; `None` when no route takes it and there is no
    /// default.
    #[must_use]
    pub fn destination(&self, topic: &str) -> Option<Destination> {
        if topic.starts_with("$share/") {
            // A subscription's name, never a message's.
            return None;
        }
        for route in &self.all {
            let Some(captures) = route.pattern.captures(topic) else {
                continue;
            };
            return Some(Destination {
                topic: sanitise::kafka_topic(&route.topic.fill(topic, &captures)),
                key: route.key.as_ref().map(|key| key.fill(topic, &captures)),
                headers: route
                    .headers
                    .iter()
                    .map(|(name, value)| (name.clone(), value.fill(topic, &captures)))
                    .collect(),
                options: route.options,
            });
        }
        self.default_topic.as_ref().map(|name| Destination {
            topic: sanitise::kafka_topic(name),
            key: None,
            headers: Vec::new(),
            options: TopicOptions::default(),
        })
    }

    /// The names that are the same for every message, as written.
    fn fixed_names(&self) -> impl Iterator<Item = &str> {
        let routed = self.all.iter().filter_map(|route| route.topic.fixed());
        routed.chain(self.default_topic.as_deref())
    }

    /// For `tidegate check`: names that had to be changed, and different names that become the same
    /// topic or that Kafka does not let stand side by side (`.` and `_` are one to its metrics).
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut seen: Vec<(&str, String)> = Vec::new();
        for name in self.fixed_names() {
            if seen.iter().any(|(other, _)| *other == name) {
                continue;
            }
            let legal = sanitise::kafka_topic(name);
            if legal != name {
                warnings.push(format!(
                    "`{name}` is no legal Kafka topic name: records go to `{legal}`"
                ));
            }
            for (other, other_legal) in &seen {
                if *other_legal == legal {
                    warnings.push(format!("`{other}` and `{name}` are both topic `{legal}`"));
                } else if sanitise::metric_name(other_legal) == sanitise::metric_name(&legal) {
                    warnings.push(format!(
                        "`{other_legal}` and `{legal}` differ only in . and _: Kafka takes one of \
                         them"
                    ));
                }
            }
            seen.push((name, legal));
        }
        warnings
    }
}
