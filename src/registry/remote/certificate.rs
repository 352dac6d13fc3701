//! What `ping` tells of a certificate: who issued it, and until when it is good. It has been verified by then; this only reads
//! these two fields of its DER (X.690, RFC 5280).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;
/// `commonName`, `organizationName` (X.520), in the order in which they are told.
const NAMES: [[u8; 3]; 2] = [[0x55, 0x04, 0x03], [0x55, 0x04, 0x0a]];

/// A certificate that a registry showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The issuer's common name, else its organization; empty where it has neither.
    pub issuer: String,
    /// When it ends.
    pub ends: Timestamp,
}

impl Certificate {
    /// Reads DER; `None` for what is no certificate.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (certificate, _) = take(der, SEQUENCE)?;
        let (tbs, _) = take(certificate, SEQUENCE)?;
        let tbs = take(tbs, VERSION).map_or(tbs, |(_, rest)| rest);
        let (_serial, tbs) = any(tbs).map(|(_, value, rest)| (value, rest))?;
        let (_algorithm, tbs) = take(tbs, SEQUENCE)?;
        let (issuer, tbs) = take(tbs, SEQUENCE)?;
        let (validity, _) = take(tbs, SEQUENCE)?;
        let (_, _, validity) = any(validity)?;
        let (tag, ends, _) = any(validity)?;
        Some(Self {
            issuer: name(issuer),
            ends: time(tag, ends)?,
        })
    }
}

/// The first value of `bytes`: its tag, itself, and what follows.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    let mut whole = usize::from(length);
    if length >= 0x80 {
        let count = usize::from(length & 0x7f);
        // Four bytes of length are more than any certificate; none is a form that DER does not have.
        if !(1..=4).contains(&count) || rest.len() < count {
            return None;
        }
        let (digits, after) = rest.split_at(count);
        whole = digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit));
        rest = after;
    }
    (rest.len() >= whole).then(|| (tag, &rest[..whole], &rest[whole..]))
}

fn take(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, value, rest) = any(bytes)?;
    (tag == wanted).then_some((value, rest))
}

/// A name in words, from its sets of attributes.
fn name(mut sets: &[u8]) -> String {
    let mut found = [const { String::new() }; NAMES.len()];
    while let Some((set, rest)) = take(sets, SET) {
        sets = rest;
        let Some((attribute, _)) = take(set, SEQUENCE) else {
            continue;
        };
        let Some((kind, value)) = take(attribute, OBJECT_IDENTIFIER) else {
            continue;
        };
        let (Some(at), Some((_, text, _))) = (NAMES.iter().position(|known| known == kind), any(value)) else {
            continue;
        };
        // All forms that are in use are ASCII or UTF-8.
        let text = String::from_utf8_lossy(text);
        found[at] = text.chars().filter(|c| !c.is_control()).take(100).collect();
    }
    found.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", &text).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn made(year: i32, names: &[(DnType, &str)]) -> Vec<u8> {
        let mut of = CertificateParams::new(vec!["r.example".to_owned()]).expect("parameters");
        of.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            of.distinguished_name.push(kind.clone(), *name);
        }
        of.not_after = date_time_ymd(year, 2, 3);
        let key = KeyPair::generate().expect("a key");
        of.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn issuer_and_end() {
        let names = [(DnType::OrganizationName, "Acme"), (DnType::CommonName, "Acme Root ü")];
        for (year, names, issuer) in [
            (2031, &names[..], "Acme Root ü"),
            (2049, &names[..1], "Acme"),
            (2050, &names[..], "Acme Root ü"),
            (2150, &[], ""),
        ] {
            let read = Certificate::read(&made(year, names)).expect("a certificate");
            assert_eq!(read.issuer, issuer);
            assert_eq!(read.ends.to_string(), format!("{year}-02-03T00:00:00Z"));
        }
    }

    #[test]
    fn what_is_cut_or_spoilt_is_none() {
        let whole = made(2031, &[(DnType::CommonName, "x")]);
        for length in 0..whole.len() {
            assert_eq!(Certificate::read(&whole[..length]), None, "{length}");
        }
        for at in 0..200 {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 0xff;
            // Whatever it reads, it ends.
            let _ = Certificate::read(&spoilt);
        }
    }
}
