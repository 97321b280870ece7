//! A login as a Hugging Face token, for clients that can send nothing else.
//!
//! Hugging Face's clients send `Authorization: Bearer <HF_TOKEN>`, and llama.cpp sends only tokens of
//! the form `hf_` with 34 or more letters and digits. So the token is the login itself, written in
//! that form: `hf_` and the hexadecimal digits of `name:password`, with zeros at the end where they
//! are too few. It is as secret as the password, and as long as the password holds, so does it.

/// How every token begins.
const BEGIN: &str = "hf_";

/// The name and password that a token carries; `None` when it is no token of this form.
pub(super) fn login(token: &str) -> Option<(String, String)> {
    let digits = token.trim().strip_prefix(BEGIN)?;
    let text = String::from_utf8(from_hex(digits)?).ok()?;
    let (name, password) = text.trim_end_matches('\0').split_once(':')?;
    let is_login = !name.is_empty() && !text.trim_end_matches('\0').contains('\0');
    is_login.then(|| (name.to_owned(), password.to_owned()))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        u8::try_from(digit(0)? * 16 + digit(1)?).ok()
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use crate::http::access::hub_token::login;

    #[test]
    fn a_token_carries_a_login_and_zeros_at_its_end_do_not_count() {
        let wanted = Some(("ann".to_owned(), "s:1".to_owned()));
        assert_eq!(login("hf_616e6e3a733a31"), wanted);
        assert_eq!(login("hf_616E6E3A733A31"), wanted);
        assert_eq!(login("hf_616e6e3a733a3100000000000000000000000"), None);
        assert_eq!(login("hf_616e6e3a733a31000000000000000000000000"), wanted);
        for bad in [
            "",
            "hf_",
            "616e6e3a73",
            "hf_6",
            "hf_zz",
            "hf_3a73",
            "hf_616e6e",
            "hf_ff3a",
        ] {
            assert_eq!(login(bad), None, "{bad}");
        }
        assert_eq!(login("hf_61003a73"), None);
    }
}
