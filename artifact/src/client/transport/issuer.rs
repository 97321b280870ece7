//! The name of a certificate's issuer, for messages: as much of X.509 (RFC 5280 section 4.1) as
//! that takes, read from bytes of a stranger.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
/// The explicit tag of the version, which may be left out.
const VERSION: u8 = 0xa0;
/// 2.5.4.3, the common name.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// 2.5.4.10, the organisation.
const ORGANISATION: [u8; 3] = [0x55, 0x04, 0x0a];
/// Longest name that is shown, in characters.
const MAX_SHOWN: usize = 100;

/// Common name and organisation of the issuer, the former in quotes.
pub(super) fn issuer_of(certificate: &[u8]) -> Option<String> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        (_, fields) = any(fields)?;
    }
    // The serial number and the algorithm of the signature.
    (_, fields) = any(fields)?;
    (_, fields) = any(fields)?;
    let (mut names, _) = element(fields, SEQUENCE)?;
    let (mut common, mut organisation) = (None, None);
    while !names.is_empty() {
        let (set, rest) = element(names, SET)?;
        names = rest;
        let (pair, _) = element(set, SEQUENCE)?;
        let (kind, value) = element(pair, OBJECT_ID)?;
        let (text, _) = any(value)?;
        if kind == COMMON_NAME {
            common = Some(shown(text));
        } else if kind == ORGANISATION {
            organisation = Some(shown(text));
        }
    }
    match (common, organisation) {
        (Some(common), Some(organisation)) => Some(format!("{common:?} of {organisation}")),
        (Some(name), None) | (None, Some(name)) => Some(format!("{name:?}")),
        (None, None) => None,
    }
}

fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let clean = text.chars().filter(|c| !c.is_control());
    clean.take(MAX_SHOWN).collect()
}

/// The content of an element of this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    (bytes.first() == Some(&tag)).then(|| any(bytes)).flatten()
}

/// The content of an element of any tag, and what follows it: DER with definite lengths.
fn any(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(*first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        let fold = |length, digit: &u8| (length << 8) | usize::from(*digit);
        (digits.iter().fold(0, fold), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use crate::client::transport::issuer::issuer_of;

    /// The beginning of a certificate, as far as its issuer: `O=Example Corp, CN=Proxy CA`.
    fn certificate() -> Vec<u8> {
        fn der(tag: u8, content: &[u8]) -> Vec<u8> {
            let length = u8::try_from(content.len()).unwrap_or(0);
            [&[tag, 0x81, length], content].concat()
        }
        let name = |kind: u8, text: &str| {
            let pair = [der(0x06, &[0x55, 0x04, kind]), der(0x0c, text.as_bytes())].concat();
            der(0x31, &der(0x30, &pair))
        };
        let issuer = der(
            0x30,
            &[name(10, "Example Corp"), name(3, "Proxy CA")].concat(),
        );
        let fields = [
            der(0xa0, &der(0x02, &[2])),
            der(0x02, &[7]),
            der(0x30, &[]),
            issuer,
        ];
        der(0x30, &der(0x30, &fields.concat()))
    }

    #[test]
    fn the_issuer_of_a_certificate_is_named() {
        let named = issuer_of(&certificate());
        assert_eq!(named.as_deref(), Some("\"Proxy CA\" of Example Corp"));
    }

    proptest! {
        #[test]
        fn reading_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let _ = issuer_of(&bytes);
            let mut damaged = certificate();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let _ = issuer_of(&damaged);
        }
    }
}
