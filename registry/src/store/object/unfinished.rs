//! Multipart uploads that S3 still keeps parts of, as `ListMultipartUploads` shows them. Every one
//! of ours is noted in the state of its session before its first part; what this finds is what a
//! crash left between the two, and its parts would be paid for for ever.

use std::time::Duration;

use jiff::Timestamp;
use object_store::path::Path;

use crate::error::Error;
use crate::store::object::objects::Objects;

/// Pages of a listing that are read in one sweep; the next one goes on.
const PAGES: usize = 100;

/// Uploads on our data that were begun longer than `age` ago: their paths and ids.
pub(super) async fn list(objects: &Objects, age: Duration) -> Result<Vec<(Path, String)>, Error> {
    let prefix = format!("{}/", objects.path("data"));
    let mut found = Vec::new();
    let mut marker: Option<(String, String)> = None;
    for _ in 0..PAGES {
        let mut query = vec![
            ("uploads".to_owned(), String::new()),
            ("prefix".to_owned(), prefix.clone()),
        ];
        if let Some((key, upload)) = marker.take() {
            query.push(("key-marker".to_owned(), key));
            query.push(("upload-id-marker".to_owned(), upload));
        }
        let Some(xml) = objects.get_bucket(query).await? else {
            break;
        };
        let page = Listing::parse(&xml);
        let now = Timestamp::now();
        for upload in page.uploads {
            let elapsed = Duration::try_from(now.duration_since(upload.initiated));
            // A store that ignores the prefix must not cost somebody else's upload.
            let is_ours = upload.key.starts_with(&prefix);
            if is_ours && elapsed.is_ok_and(|elapsed| elapsed > age) {
                found.push((Path::from(upload.key), upload.id));
            }
        }
        marker = page.next;
        if marker.is_none() {
            break;
        }
    }
    Ok(found)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    uploads: Vec<Upload>,
    /// Where the next page begins.
    next: Option<(String, String)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Upload {
    key: String,
    id: String,
    initiated: Timestamp,
}

impl Listing {
    /// Reads the few elements that matter. What does not look as expected is passed over: it is
    /// not an upload of ours, whose keys need no escaping.
    fn parse(xml: &str) -> Self {
        let uploads = xml.split("<Upload>").skip(1).filter_map(|upload| {
            let upload = upload.split("</Upload>").next()?;
            Some(Upload {
                key: element(upload, "Key")?.to_owned(),
                id: unescape(element(upload, "UploadId")?),
                initiated: element(upload, "Initiated")?.parse().ok()?,
            })
        });
        let is_truncated = element(xml, "IsTruncated") == Some("true");
        let key = element(xml, "NextKeyMarker").map(unescape);
        let id = element(xml, "NextUploadIdMarker").map(unescape);
        Self {
            uploads: uploads.collect(),
            next: key.zip(id).filter(|_| is_truncated),
        }
    }
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text)
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use crate::store::object::unfinished::{Listing, Upload};

    #[test]
    fn a_listing_of_s3_is_read() {
        let xml = "<?xml version=\"1.0\"?><ListMultipartUploadsResult>\
            <Bucket>b</Bucket><KeyMarker></KeyMarker><NextKeyMarker>p/data/2</NextKeyMarker>\
            <NextUploadIdMarker>i&amp;2</NextUploadIdMarker><IsTruncated>true</IsTruncated>\
            <Upload><Key>p/data/1</Key><UploadId>a&lt;b</UploadId><Owner><ID>x</ID></Owner>\
            <Initiated>2026-11-21T10:00:00.000Z</Initiated></Upload>\
            <Upload><Key>p/data/2</Key><Initiated>soon</Initiated></Upload>\
            </ListMultipartUploadsResult>";
        let expected = Listing {
            uploads: vec![Upload {
                key: "p/data/1".to_owned(),
                id: "a<b".to_owned(),
                initiated: "2026-11-21T10:00:00Z".parse().unwrap(),
            }],
            next: Some(("p/data/2".to_owned(), "i&2".to_owned())),
        };
        assert_eq!(Listing::parse(xml), expected);
        assert_eq!(Listing::parse("not xml <Upload>"), Listing::default());
    }
}
