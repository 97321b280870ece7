//! Any bytes as a manifest: an error, or a manifest whose bytes are those that came in.
#![no_main]

use artifact::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for content_type in [None, Some("application/vnd.oci.image.manifest.v1+json")] {
        if let Ok(manifest) = Manifest::parse(bytes.to_vec(), content_type) {
            assert_eq!(manifest.raw(), bytes);
        }
    }
});
