//! Who may call from a browser: origins (CORS), and host names when only this machine is served.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Schemes of desktop applications, whose origins are always allowed.
const LOCAL_SCHEMES: [&str; 5] = [
    "app://",
    "file://",
    "tauri://",
    "vscode-webview://",
    "vscode-file://",
];

/// Headers that clients of both APIs send.
const HEADERS: [&str; 6] = [
    "authorization",
    "content-type",
    "user-agent",
    "accept",
    "x-requested-with",
    "openai-beta",
];

/// What OpenAI's JavaScript client adds, each after `x-stainless-`.
const STAINLESS: [&str; 11] = [
    "arch",
    "async",
    "custom-poll-interval",
    "helper-method",
    "lang",
    "os",
    "package-version",
    "poll-helper",
    "retry-count",
    "runtime",
    "runtime-version",
];

/// Allows this machine's own origins and those in `origins` (`*` for all).
pub(super) fn cross_origin(origins: &[String]) -> CorsLayer {
    let extra = origins.to_vec();
    let allowed = AllowOrigin::predicate(move |origin: &HeaderValue, _parts| {
        origin.to_str().is_ok_and(|origin| {
            is_local_origin(origin)
                || extra
                    .iter()
                    .any(|allowed| allowed == "*" || allowed == origin)
        })
    });
    let names: Vec<HeaderName> = HEADERS
        .iter()
        .map(|name| (*name).to_owned())
        .chain(STAINLESS.iter().map(|name| format!("x-stainless-{name}")))
        .chain(["x-stainless-timeout".to_owned()])
        .filter_map(|name| name.parse().ok())
        .collect();
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::HEAD,
            Method::OPTIONS,
        ])
        .allow_headers(names)
        .max_age(Duration::from_secs(12 * 3600))
}

fn is_local_origin(origin: &str) -> bool {
    if LOCAL_SCHEMES
        .iter()
        .any(|scheme| origin.starts_with(scheme))
    {
        return true;
    }
    let Some(rest) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    matches!(
        host_name(rest),
        "localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]"
    )
}

/// A server that only listens on this machine answers only to names of this machine: otherwise a
/// web page could reach it under a name of its own that resolves to 127.0.0.1.
pub(super) async fn check_host(request: Request, next: Next) -> Response {
    let host = request
        .uri()
        .authority()
        .map(axum::http::uri::Authority::as_str)
        .or_else(|| {
            request
                .headers()
                .get(header::HOST)
                .and_then(|host| host.to_str().ok())
        })
        .unwrap_or_default();
    if is_local_host(host_name(host)) {
        next.run(request).await
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

fn is_local_host(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return match address {
            IpAddr::V4(address) => {
                address.is_loopback() || address.is_private() || address.is_unspecified()
            }
            IpAddr::V6(address) => {
                address.is_loopback() || address.is_unique_local() || address.is_unspecified()
            }
        };
    }
    host.is_empty()
        || host == "localhost"
        || [".localhost", ".local", ".internal"]
            .iter()
            .any(|suffix| host.ends_with(suffix))
}

/// `host[:port][/…]` without the port; an IPv6 address keeps its brackets.
fn host_name(text: &str) -> &str {
    let text = text.split('/').next().unwrap_or(text);
    if text.starts_with('[') {
        return text
            .find(']')
            .and_then(|end| text.get(..=end))
            .unwrap_or(text);
    }
    text.split(':').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::{host_name, is_local_host, is_local_origin};

    #[test]
    fn origins_of_this_machine_are_allowed() {
        for origin in [
            "http://localhost",
            "https://localhost:8080",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "app://obsidian.md",
            "vscode-webview://abc",
        ] {
            assert!(is_local_origin(origin), "{origin}");
        }
        for origin in [
            "https://example.com",
            "http://localhost.example.com",
            "null",
        ] {
            assert!(!is_local_origin(origin), "{origin}");
        }
    }

    #[test]
    fn hosts_of_this_machine_are_answered() {
        for host in [
            "localhost:11434",
            "127.0.0.1",
            "[::1]:1",
            "10.0.0.7:80",
            "",
            "a.localhost",
            "box.local:1",
        ] {
            assert!(is_local_host(host_name(host)), "{host}");
        }
        for host in ["evil.example", "evil.example:11434", "8.8.8.8"] {
            assert!(!is_local_host(host_name(host)), "{host}");
        }
    }
}
