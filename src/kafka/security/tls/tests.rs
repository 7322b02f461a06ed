//! What is refused before any connection is made; handshakes are tried on a real Kafka
//! (`tests/it/security.rs`).

use super::*;

fn refused(files: Files, server_name: Option<&str>) -> Unfit {
    Tls::new(files, server_name, "ca_file").unwrap_err()
}

#[test]
fn files_that_cannot_be_used_are_told_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no certificate").unwrap();
    let broken = folder.path().join("broken");
    let lines = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    std::fs::write(&broken, lines).unwrap();
    let hollow = folder.path().join("hollow");
    std::fs::write(&hollow, lines.replace("!!!", "aGVsbG8=")).unwrap();
    for (path, words) in [
        (
            "/nowhere/ca.pem".into(),
            "cannot read /nowhere/ca.pem: No such file",
        ),
        (text, "text holds no PEM of certificates"),
        (broken, "is not PEM"),
        (hollow, "holds a bad certificate"),
    ] {
        let files = Files {
            ca_file: Some(path),
            identity: None,
        };
        let unfit = refused(files, None);
        assert_eq!(unfit.key, "ca_file");
        assert!(unfit.found.contains(words), "{unfit:?}");
    }
}

#[test]
fn names_are_hosts_or_addresses() {
    for bad in ["kafka 1", "kafka-1:9093", "[::1]", ""] {
        let unfit = refused(Files::default(), Some(bad));
        assert_eq!(unfit.key, "server_name", "{bad}");
    }
    for good in ["kafka-1", "::1", "10.0.0.1"] {
        assert!(ServerName::try_from(good).is_ok(), "{good}");
    }
}

#[test]
fn a_refused_certificate_of_ours_is_told() {
    let alert = io::Error::new(
        ErrorKind::InvalidData,
        "received fatal alert: BadCertificate",
    );
    let told = late(alert).to_string();
    assert!(
        told.starts_with("TLS: received fatal alert: BadCertificate (the broker"),
        "{told}"
    );
    let other = late(io::Error::new(
        ErrorKind::UnexpectedEof,
        "closed by the broker",
    ));
    assert_eq!(other.to_string(), "closed by the broker");
}
