//! Byte ranges: `Range` of a download (RFC 9110 section 14) and `Content-Range` of a chunk.

use std::ops::Range;

use crate::service::uploads::ChunkRange;

/// What a `Range` header asks of content of a given size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    /// No range, or one that a server may ignore: all of it.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Nothing that exists: 416.
    Unsatisfiable,
}

/// Reads a `Range` header. Several ranges at once are answered with the whole content, which the
/// RFC allows and which costs no more than one range.
pub(crate) fn requested(header: Option<&str>, size: u64) -> Requested {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Requested::Whole;
    };
    if spec.contains(',') {
        return Requested::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Requested::Whole;
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return Requested::Unsatisfiable,
        (Some(first), Some(last)) => (first, last.saturating_add(1)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(count)) if first.is_empty() => (size.saturating_sub(count), size),
        _ => return Requested::Whole,
    };
    let end = end.min(size);
    if start < end {
        Requested::Part(start..end)
    } else {
        Requested::Unsatisfiable
    }
}

/// Reads the `Content-Range` of a chunk: `<first>-<last>`, as the distribution-spec has it, or
/// `bytes <first>-<last>/<total>`, as some clients write it. `None` when it is neither.
pub(crate) fn chunk(header: &str) -> Option<ChunkRange> {
    let header = header.trim();
    let range = match header.strip_prefix("bytes ") {
        Some(range) => range.split('/').next()?,
        None => header,
    };
    let (start, end) = range.split_once('-')?;
    let range = ChunkRange {
        start: number(start)?,
        end: number(end)?,
    };
    (range.start <= range.end).then_some(range)
}

/// Digits only: no sign, no space. Too many digits are too large, hence the end of all numbers.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use crate::http::range::{Requested, chunk, requested};
    use crate::service::uploads::ChunkRange;

    #[test]
    fn ranges_are_cut_to_what_exists() {
        for (header, wanted) in [
            ("bytes=500-1499", Requested::Part(500..1500)),
            ("bytes=500-", Requested::Part(500..2048)),
            ("bytes=-500", Requested::Part(1548..2048)),
            ("bytes=-5000", Requested::Part(0..2048)),
            ("bytes=2000-5000", Requested::Part(2000..2048)),
            ("bytes=0-99999999999999999999999", Requested::Part(0..2048)),
            ("bytes=500-0", Requested::Unsatisfiable),
            ("bytes=5000-10000", Requested::Unsatisfiable),
            ("bytes=2048-", Requested::Unsatisfiable),
            ("bytes=-0", Requested::Unsatisfiable),
            ("bytes=0-1,5-6", Requested::Whole),
            ("bytes=x-", Requested::Whole),
            ("items=0-1", Requested::Whole),
        ] {
            assert_eq!(requested(Some(header), 2048), wanted, "{header}");
        }
        assert_eq!(requested(None, 2048), Requested::Whole);
        assert_eq!(requested(Some("bytes=0-"), 0), Requested::Unsatisfiable);
    }

    #[test]
    fn chunk_ranges_are_read_in_both_spellings() {
        let range = Some(ChunkRange { start: 3, end: 7 });
        assert_eq!(chunk("3-7"), range);
        assert_eq!(chunk("bytes 3-7/*"), range);
        for bad in ["", "7-3", "-3-7", "3-", "3", "a-b", "3-7-9", "0x1-2"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
