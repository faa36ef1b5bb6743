//! The link by which a person unsubscribes: `<public_url>/u/<token>`. The token is the id of an execution and a code over it that
//! only who has the secret can make, so that nobody can unsubscribe somebody else or find out who exists.
//!
//! It names the execution and not the send: sends are dropped with their month, and a link in an old mail has to work for ever.
//! Called by `runtime` (which writes links) and `http` (which reads them).

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::id::ExecutionId;

/// What a code is made for, so that it is good for nothing else.
const PURPOSE: &[u8] = b"campaignd unsubscribe 1\0";
/// Bytes of the code: 128 bits of the HMAC, more than anybody can try.
const CODE_BYTES: usize = 16;
/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;
/// Bytes of a new secret.
pub const SECRET_BYTES: usize = 32;

/// The key of all links of an installation. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkSecret(Vec<u8>);

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSecret")
    }
}

impl LinkSecret {
    /// From stored bytes; `None` when they are too few to be a secret.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() >= 16).then_some(Self(bytes))
    }

    fn code(&self, execution: ExecutionId) -> [u8; CODE_BYTES] {
        let full = hmac(&self.0, &[PURPOSE, execution.0.as_bytes()]);
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&full[..CODE_BYTES]);
        code
    }
}

/// The link of a person; `public_url` has no slash at its end.
pub fn unsubscribe_url(secret: &LinkSecret, public_url: &str, execution: ExecutionId) -> String {
    format!("{public_url}/u/{}", token(secret, execution))
}

/// The token of a person: 64 hexadecimal digits.
pub fn token(secret: &LinkSecret, execution: ExecutionId) -> String {
    execution.0.as_bytes().iter().chain(&secret.code(execution)).map(|b| format!("{b:02x}")).collect()
}

/// Whose token this is; `None` for one that was not made with this secret. Takes the same time whatever differs.
pub fn execution_of(secret: &LinkSecret, token: &str) -> Option<ExecutionId> {
    let digits = token.as_bytes();
    let mut bytes = [0_u8; 16 + CODE_BYTES];
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let &[high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    let (id, code) = bytes.split_at(16);
    let execution = ExecutionId(Uuid::from_slice(id).ok()?);
    bool::from(secret.code(execution).as_slice().ct_eq(code)).then_some(execution)
}

/// HMAC-SHA256 (RFC 2104) over the parts put together.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0_u8; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|b| b ^ pad);
    let mut inner = Sha256::new_with_prefix(padded(0x36));
    for part in parts {
        inner.update(part);
    }
    Sha256::new_with_prefix(padded(0x5c)).chain_update(inner.finalize()).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_code_is_hmac_sha256_as_rfc_4231_has_it() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, text, code) in cases {
            assert_eq!(hex(&hmac(key, &[text])), code);
            let (a, b) = text.split_at(3);
            assert_eq!(hex(&hmac(key, &[a, b])), code, "in parts");
        }
    }

    #[test]
    fn a_token_names_its_person_and_nobody_elses() {
        let secret = LinkSecret::new(vec![7; 32]).unwrap();
        let ada = ExecutionId(Uuid::from_u128(42));
        let url = unsubscribe_url(&secret, "https://go.example", ada);
        let token = url.strip_prefix("https://go.example/u/").unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(execution_of(&secret, token), Some(ada));
        let other = LinkSecret::new(vec![8; 32]).unwrap();
        assert_eq!(execution_of(&other, token), None, "another installation's");
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(execution_of(&secret, std::str::from_utf8(&changed).unwrap()), None, "digit {at}");
        }
        assert_eq!(format!("{secret:?}"), "LinkSecret");
        assert_eq!(LinkSecret::new(vec![1; 15]), None);
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_by_chance_and_none_panics(text in "\\PC{0,80}", digits in "[0-9a-f]{64}") {
            let secret = LinkSecret::new(vec![7; 32]).unwrap();
            prop_assert_eq!(execution_of(&secret, &text), None);
            prop_assert_eq!(execution_of(&secret, &digits), None);
        }
    }
}
