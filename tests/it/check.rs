//! `tidegate check` as people and scripts meet it: text on the right stream, the documented exit
//! code.

use std::process::{Command, Output};

fn tidegate(args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn check(config: &str, variables: &[(&str, &str)]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidegate.toml");
    std::fs::write(&file, config).unwrap();
    tidegate(&["check", "--config", file.to_str().unwrap()], variables)
}

#[test]
fn a_right_configuration_ends_with_0_and_a_summary() {
    let root = env!("CARGO_MANIFEST_DIR");
    for sample in ["tidegate.toml", "demo.toml"] {
        let sample = format!("{root}/examples/{sample}");
        let (code, out, err) = tidegate(&["check", "--config", &sample], &[]);
        assert_eq!((code, err.as_str()), (0, ""));
        for part in ["ok", "127.0.0.1:1883", "127.0.0.1:8083", "-> temperature"] {
            assert!(out.contains(part), "{out}");
        }
        assert!(!out.contains("warning"), "{out}");
    }
}

#[test]
fn a_wrong_one_ends_with_1_and_all_that_is_wrong() {
    let config = "[kafka]\nbootstrap_server = [\"k:1\"]\n[spool]\nmax_bytes = \"2GB\"\n";
    let (code, out, err) = check(config, &[("TIDEGATE__API__LISTEN", "here")]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err.lines().count(), 4, "{err}");
    assert!(err.contains("tidegate.toml:2: kafka.bootstrap_server: unknown key; did you mean"));
    assert!(err.contains("tidegate.toml:1: kafka.bootstrap_servers: missing"));
    assert!(err.contains("tidegate.toml:4: spool.max_bytes: found \"2GB\"; write \"2GiB\""));
    assert!(err.contains("TIDEGATE__API__LISTEN: api.listen: found \"here\""));
}

#[test]
fn run_refuses_the_same_and_usage_is_another_code() {
    let (code, _, err) = tidegate(&["run", "--config", "/nowhere.toml"], &[]);
    assert_eq!(code, 1);
    assert!(err.starts_with("/nowhere.toml: cannot be read"), "{err}");
    assert_eq!(tidegate(&["chek"], &[]).0, 2);
    let (code, out, _) = tidegate(&["--version"], &[]);
    assert_eq!(
        (code, out.trim_end()),
        (0, concat!("tidegate ", env!("CARGO_PKG_VERSION")))
    );
}
