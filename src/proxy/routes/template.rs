//! Texts with `{name}` for what a filter captured and `{topic}` for the whole MQTT topic; `{{` and
//! `}}` are braces.
//!
//! `{client_id}` is not among them: a topic seen before must be routed without a look at who sent
//! it. The client id is a header.

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Number of a capture.
    Capture(usize),
    Topic,
}

impl Template {
    /// Compiles a template for a filter that captures `names`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str, names: &[String]) -> Result<Self, (String, String)> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    plain.push(c);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(c) => name.push(c),
                            None => {
                                let what = format!("`{{{name}` without `}}`");
                                return Err((what, format!("{{{name}}}")));
                            }
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(placeholder(&name, names)?);
                }
                '}' => return Err(("`}` without `{`".to_owned(), "}}".to_owned())),
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The text, if it is the same for every message.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for one message.
    #[must_use]
    pub fn fill(&self, topic: &str, captures: &[&str]) -> String {
        let mut out = String::new();
        for part in &self.parts {
            out.push_str(match part {
                Part::Text(text) => text,
                Part::Capture(at) => captures.get(*at).copied().unwrap_or_default(),
                Part::Topic => topic,
            });
        }
        out
    }
}

fn placeholder(name: &str, names: &[String]) -> Result<Part, (String, String)> {
    if name == "topic" {
        return Ok(Part::Topic);
    }
    if let Some(at) = names.iter().position(|other| other == name) {
        return Ok(Part::Capture(at));
    }
    let mut known: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
    known.push("{topic}".to_owned());
    let what = format!("`{{{name}}}` is not captured by the filter");
    Err((what, known.join(" or ")))
}
