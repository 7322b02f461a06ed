//! Routes as users write them.

use std::time::Duration;

use super::*;
use crate::config::checked::Route;
use crate::proxy::tests::config;

fn route(mqtt: &str, topic: &str, key: Option<&str>) -> Route {
    Route {
        mqtt: mqtt.into(),
        topic: topic.into(),
        key: key.map(Into::into),
        headers: vec![("line".into(), "L{topic}".into())],
        priority: 5,
        ttl: Some(Duration::from_secs(1)),
    }
}

fn compile(routes: Vec<Route>, default: Option<&str>) -> Result<Routes, Vec<RouteError>> {
    let mut proxy = config();
    proxy.routes = routes;
    proxy.default_topic = default.map(Into::into);
    Routes::compile(&proxy)
}

fn captures(filter: &str, topic: &str) -> Option<Vec<String>> {
    let taken = Pattern::parse(filter).unwrap();
    let taken = taken.captures(topic);
    taken.map(|all| all.into_iter().map(str::to_owned).collect())
}

#[test]
fn filters_match_as_in_mqtt() {
    let yes = |filter, topic, wanted: &[&str]| {
        assert_eq!(
            captures(filter, topic).as_deref(),
            Some(&wanted.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]),
            "{filter} {topic}"
        );
    };
    yes("plant/+line/#rest", "plant/7/a/b", &["7", "a/b"]);
    yes("plant/+line/#rest", "plant/7", &["7", ""]);
    yes("+/b", "a/b", &[]);
    yes("#", "a//b", &[]);
    yes("+x/+y", "/", &["", ""]);
    yes("$SYS/#r", "$SYS/a", &["a"]);
    yes("é/+t", "é/温度", &["温度"]);
    for (filter, topic) in [
        ("#", "$SYS/a"),
        ("+/a", "$SYS/a"),
        ("a/+", "a"),
        ("a/+", "a/b/c"),
        ("a", "a/"),
        ("a/#", "ab"),
    ] {
        assert_eq!(captures(filter, topic), None, "{filter} {topic}");
    }
}

#[test]
fn wrong_filters_and_templates_are_all_told() {
    let wrong = vec![
        route("a/#rest/b", "t", None),
        route("a/b+", "t", None),
        route("+x/+x", "t", None),
        route("+topic", "t", None),
        route("+1", "t", None),
        route("", "t", None),
        route("+line", "{lime}", Some("{line")),
    ];
    let errors = compile(wrong, None).unwrap_err();
    let places: Vec<_> = errors.iter().map(|e| (e.index, e.key.as_str())).collect();
    assert_eq!(
        places,
        [
            (0, "mqtt"),
            (1, "mqtt"),
            (2, "mqtt"),
            (3, "mqtt"),
            (4, "mqtt"),
            (5, "mqtt"),
            (6, "topic"),
            (6, "key")
        ]
    );
    assert_eq!(errors[6].would_be_right, "{line} or {topic}");
}

#[test]
fn the_first_match_wins_and_fills_its_templates() {
    let routes = compile(
        vec![
            route(
                "plant/+line/+m/temp",
                "temperature.{line}",
                Some("{line}.{m}"),
            ),
            route("plant/#", "{{{topic}}}", None),
        ],
        Some("mqtt"),
    )
    .unwrap();
    let first = routes.destination("plant/7/drill é/temp").unwrap();
    assert_eq!(
        (first.topic.as_str(), first.key.as_deref()),
        ("temperature.7", Some("7.drill é"))
    );
    assert_eq!(
        first.headers,
        [("line".to_owned(), "Lplant/7/drill é/temp".to_owned())]
    );
    assert_eq!(
        (first.options.priority, first.options.ttl),
        (5, Some(Duration::from_secs(1)))
    );
    let second = routes.destination("plant/x").unwrap();
    assert_eq!((second.topic.as_str(), second.key), ("_plant_x_", None));
    assert_eq!(routes.destination("other").unwrap().topic, "mqtt");
    assert!(
        compile(vec![], None)
            .unwrap()
            .destination("other")
            .is_none()
    );
}

#[test]
fn colliding_names_are_warned_of() {
    let routes = vec![
        route("a", "a/b", None),
        route("b", "a_b", None),
        route("c", "a.b", None),
    ];
    let warnings = compile(routes, Some("a_b")).unwrap().warnings();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings[0].contains("no legal"), "{warnings:?}");
}
