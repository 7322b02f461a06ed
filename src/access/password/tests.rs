//! Hashes that others made, and files that are wrong.

use super::*;

/// Of `secret`: mosquitto's kind by Python's `hashlib`, bcrypt by libxcrypt, Argon2id by the
/// reference implementation's `argon2 0123456789ab -id -m 10 -t 2 -p 1 -e`.
const MOSQUITTO: &str = "$7$101$MDEyMzQ1Njc4OWFi$EO/lLlkeUgIiBaS8G8UK0ZMP1u508TA7Tl+AdJ1cEsmlbGyE\
                         PAERErpfq84j1kepISs0UzmcdL4ucgZ2uodxfQ==";
const BCRYPT: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
const HTPASSWD: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
const ARGON2: &str =
    "$argon2id$v=19$m=1024,t=2,p=1$MDEyMzQ1Njc4OWFi$/eWNtmzBbXWp0TecT0OdikCo41tnzUcl1ciBTeV3mMg";

#[test]
fn hashes_of_others_are_read() {
    for text in [MOSQUITTO, BCRYPT, HTPASSWD, ARGON2] {
        let hash = Hash::read(text).unwrap();
        assert!(hash.fits(b"secret"), "{text}");
        for wrong in [&b""[..], b"Secret", b"secret ", b"\xff"] {
            assert!(!hash.fits(wrong), "{text} {wrong:?}");
        }
        assert!(!format!("{hash:?}").contains('$'));
    }
}

#[test]
fn our_own_are_read_back_and_salted() {
    let [one, other] = [(); 2].map(|()| Hash::of("pässword".as_bytes()).unwrap());
    assert_ne!(one.text(), other.text());
    assert!(one.text().starts_with("$argon2id$v=19$m=7168,t=5,p=1$"));
    let read = Hash::read(one.text()).unwrap();
    assert!(read.fits("pässword".as_bytes()) && !read.fits(b"password"));
}

#[test]
fn what_is_no_hash_or_costs_too_much_is_refused() {
    let too_dear = [
        ARGON2.replace("m=1024", "m=65537"),
        ARGON2.replace("t=2", "t=17"),
        ARGON2.replace("p=1", "p=9"),
        BCRYPT.replace("$05$", "$15$"),
        MOSQUITTO.replace("$101$", "$1000001$"),
    ];
    for text in too_dear {
        let why = Hash::read(&text).unwrap_err();
        assert!(why.0.contains("at most"), "{text}: {}", why.0);
    }
    for text in [
        "",
        "secret",
        "$",
        "$argon2id$",
        "$argon2id$v=19$m=1024,t=2,p=1$MDEyMzQ1Njc4OWFi",
        "$argon2i$v=19$m=1024,t=2,p=1$MDEyMzQ1Njc4OWFi$AAAA",
        "$2b$",
        "$2b$05$abc",
        "$2b$xx$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
        "$2b$03$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
        "$6$MDEyMzQ1Njc4OWFi$EO/lLlkeUg==",
        "$7$101$MDEyMzQ1Njc4OWFi$EO/l",
        "$7$0$MDEyMzQ1Njc4OWFi$EO/l",
        "$7$101$$",
        "$7$101$a",
        "$7$101$MDEy$MDEy$MDEy",
    ] {
        assert!(Hash::read(text).is_err(), "{text}");
    }
}

#[test]
fn a_file_has_a_line_a_user_and_is_not_blank() {
    let good = format!("# comment\n\na:{ARGON2}\nb c:{BCRYPT}\r\né:{MOSQUITTO}");
    let users = Passwords::read(&good).unwrap();
    assert_eq!(users.count(), 3);
    for user in ["a", "b c", "é"] {
        assert!(users.of(user).unwrap().fits(b"secret"), "{user}");
    }
    assert!(users.of("").is_none() && users.of("A").is_none());
    for (text, line, found) in [
        (String::new(), 0, "holds no user"),
        ("# a\n \n".into(), 0, "holds no user"),
        ("a\n".into(), 1, "not USER:HASH"),
        (format!(":{ARGON2}"), 1, "not USER:HASH"),
        (format!("a:{ARGON2}\n\nb:hunter2\n"), 3, "no hash that is"),
        (format!("a:{ARGON2}\na:{BCRYPT}\n"), 2, "has a line already"),
        (format!("a:{ARGON2}\nb:{}", &ARGON2[..70]), 2, "Argon2id"),
    ] {
        let wrong = Passwords::read(&text).unwrap_err();
        assert_eq!(wrong.line, line, "{text}");
        assert!(wrong.found.contains(found), "{text}: {}", wrong.found);
        assert!(!wrong.found.contains("hunter2"));
    }
}

#[test]
fn an_edit_leaves_the_other_lines_alone() {
    let text = "# ours\na:1\n\nab:2\n";
    assert_eq!(
        edited(text, "a", Some("3")).unwrap(),
        "# ours\na:3\n\nab:2\n"
    );
    assert_eq!(
        edited(text, "b", Some("3")).unwrap(),
        "# ours\na:1\n\nab:2\nb:3\n"
    );
    assert_eq!(edited(text, "ab", None).unwrap(), "# ours\na:1\n\n");
    assert_eq!(edited(text, "b", None), None);
    assert_eq!(edited("", "a", Some("1")).unwrap(), "a:1\n");
    assert_eq!(edited("a:1", "b", Some("2")).unwrap(), "a:1\nb:2\n");
}

#[test]
fn names_must_fit_into_a_line() {
    for name in ["a", "a b", "é", "a@b.c", "a#"] {
        assert!(is_user(name), "{name}");
    }
    for name in ["", "a:b", "a\nb", "#a", " a", "a ", "a\0"] {
        assert!(!is_user(name), "{name:?}");
    }
}

#[test]
fn a_name_that_is_no_users_stands_behind_the_same_user_each_time() {
    let file = format!("a:{MOSQUITTO}\nb:{BCRYPT}\nc:{ARGON2}\n");
    let passwords = Passwords::read(&file).unwrap();
    let names: Vec<String> = (0..200).map(|n| format!("nobody-{n}")).collect();
    let stand_in = |name: &String| passwords.stand_in(name).unwrap().text().to_owned();
    let all: Vec<String> = names.iter().map(stand_in).collect();
    assert_eq!(all, names.iter().map(stand_in).collect::<Vec<_>>());
    for hash in [MOSQUITTO, BCRYPT, ARGON2] {
        assert!(all.iter().any(|text| text == hash), "{hash}");
    }
}
