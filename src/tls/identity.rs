//! Whom a client's certificate names.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Any, Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Where in a certificate the user is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedIn {
    /// The common name of its subject.
    CommonName,
    /// Its subject alternative names: the first that is a DNS name, else an e-mail address, else a
    /// URI.
    AlternativeName,
}

impl fmt::Display for NamedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommonName => "common name",
            Self::AlternativeName => "subject alternative names",
        })
    }
}

/// The user that a certificate names; `None`: none.
#[must_use]
pub fn user_of(certificate: &CertificateDer<'_>, named_in: NamedIn) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let name = match named_in {
        NamedIn::CommonName => common_name(&certificate),
        NamedIn::AlternativeName => alternative_name(&certificate),
    };
    name.filter(|name| !name.is_empty())
}

/// The last one, which is the most specific (RFC 4514, section 2.1).
fn common_name(certificate: &Certificate) -> Option<String> {
    let parts = certificate.tbs_certificate.subject.0.iter();
    let mut all = parts.flat_map(|part| part.0.iter()).rev();
    let named = all.find(|attribute| attribute.oid == COMMON_NAME)?;
    text(&named.value)
}

fn text(value: &Any) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str(),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str(),
        _ => return None,
    };
    Some(text.to_owned())
}

fn alternative_name(certificate: &Certificate) -> Option<String> {
    let found = certificate.tbs_certificate.get::<SubjectAltName>();
    let (_, SubjectAltName(names)) = found.ok()??;
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        _ => None,
    });
    let mail = || {
        names.iter().find_map(|name| match name {
            GeneralName::Rfc822Name(name) => Some(name.to_string()),
            _ => None,
        })
    };
    let uri = || {
        names.iter().find_map(|name| match name {
            GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
            _ => None,
        })
    };
    dns.or_else(mail).or_else(uri)
}
