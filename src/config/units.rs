//! Sizes and durations as people write them.

/// Largest first.
const SIZES: [(&str, i64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// Units that a person may have meant, in milliseconds.
const DURATIONS: [(&str, i64); 10] = [
    ("ms", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("days", 86_400_000),
];

/// Bytes from `2GiB`, `256 MiB` or a plain number.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1,
        _ => SIZES.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor)
}

/// What `2GB`, `2G` or `2 gb` would be in our units.
pub(super) fn bytes_meant(text: &str) -> Option<String> {
    let (number, unit) = split(text)?;
    let letter = unit.chars().next()?.to_ascii_uppercase();
    let (name, _) = SIZES.iter().find(|(name, _)| name.starts_with(letter))?;
    Some(format!("{number}{name}"))
}

/// What `5s` or `2 h` would be in milliseconds.
pub(super) fn millis_meant(text: &str) -> Option<i64> {
    let (number, unit) = split(text)?;
    let (_, factor) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// A whole number with or without underscores.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    match split(digits)? {
        (number, "") => Some(sign * number),
        _ => None,
    }
}

fn split(text: &str) -> Option<(i64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_');
    let (digits, unit) = text.split_at_checked(end.unwrap_or(text.len()))?;
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((digits.replace('_', "").parse().ok()?, unit.trim_start()))
}

/// `2GiB` where that is exact, else a plain number.
pub(super) fn show_bytes(n: i64) -> String {
    let fits = |(_, factor): &&(&str, i64)| n >= *factor && n % *factor == 0;
    SIZES.iter().find(fits).map_or_else(
        || show_integer(n),
        |(name, factor)| format!("{}{name}", n / factor),
    )
}

/// With an underscore every three digits, as TOML takes it.
pub(super) fn show_integer(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut shown = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push('_');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("2GiB"), Some(2 << 30));
        assert_eq!(bytes("256 MiB"), Some(256 << 20));
        assert_eq!(bytes("1_000"), Some(1_000));
        assert_eq!(bytes("2GB"), None);
        assert_eq!(bytes("-1"), None);
        assert_eq!(bytes("99999999TiB"), None);
        assert_eq!(bytes(""), None);
        assert_eq!(bytes_meant("2 gb").as_deref(), Some("2GiB"));
        assert_eq!(show_bytes(3 << 19), "1536KiB");
        assert_eq!(show_bytes(1_000_001), "1_000_001");
    }

    #[test]
    fn durations() {
        assert_eq!(millis_meant("5s"), Some(5_000));
        assert_eq!(millis_meant("2 h"), Some(7_200_000));
        assert_eq!(millis_meant("fast"), None);
    }

    #[test]
    fn integers() {
        assert_eq!(integer("-7"), Some(-7));
        assert_eq!(integer("86_400_000"), Some(86_400_000));
        assert_eq!(integer("1x"), None);
        assert_eq!(show_integer(86_400_000), "86_400_000");
        assert_eq!(show_integer(-1000), "-1_000");
    }
}
