//! Which errors are worth another try.

use reqwest::StatusCode;

use crate::client::error::Error;

#[test]
fn a_busy_server_is_worth_another_try_and_a_missing_page_is_not() {
    let answer = |status| Error::Status {
        url: String::new(),
        status,
        detail: String::new(),
        retry_after: None,
    };
    assert!(answer(StatusCode::SERVICE_UNAVAILABLE).is_retryable());
    assert!(answer(StatusCode::TOO_MANY_REQUESTS).is_retryable());
    assert!(!answer(StatusCode::GONE).is_retryable());
}
