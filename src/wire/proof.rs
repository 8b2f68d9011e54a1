//! Pure. The cluster secret, and the proofs that both ends of a new connection know it.
//!
//! ```text
//! proof = HMAC-SHA256(secret, "kvpeer/1" | role u8 | dialler nonce u64 | answerer nonce u64
//!                             | dialler node u128 | answerer node u128)          little-endian, 57 bytes
//! role  = 1 the dialler proves itself, 2 the answerer does
//! ```
//!
//! Each end contributes a nonce, so a proof that was overheard fits no later connection. The role keeps the two
//! directions apart: what an end receives is never what it would have to send, so nothing can be handed back to
//! where it came from; and all fields have a fixed length, so no two connections share their input. The answerer
//! proves itself first and the dialler only after that, so a stranger that listens at a member's address gets no
//! proof of the dialler at all.
//!
//! What it is not: it protects the handshake, not the bytes after it. Whoever can alter packets on the way can
//! pass the handshake through and then speak in its place; only encryption would end that. And a stranger who
//! dials gets a proof to guess secrets against at leisure, hence [`SECRET_BYTES_MIN`].

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;

use super::hello::Hello;

/// Shortest secret. Shorter: the node does not start.
pub const SECRET_BYTES_MIN: usize = 16;

/// One proof.
pub type Mac = [u8; 32];

const LABEL: &[u8; 8] = b"kvpeer/1";

/// What all members know and nobody else. Never printed.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

/// The secret is shorter than [`SECRET_BYTES_MIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

/// Who proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Dialler,
    Answerer,
}

/// What makes one connection unlike any other. Kept by the answerer until the dialler's proof comes, perhaps on
/// another core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    dialler_nonce: u64,
    answerer_nonce: u64,
    dialler_node: u128,
    answerer_node: u128,
}

impl Ends {
    #[must_use]
    pub fn of(dialler: &Hello<'_>, answerer: &Hello<'_>) -> Ends {
        Ends {
            dialler_nonce: dialler.nonce,
            answerer_nonce: answerer.nonce,
            dialler_node: dialler.node,
            answerer_node: answerer.node,
        }
    }
}

impl Secret {
    /// Every byte counts: take off the line end of a file first.
    pub fn new(bytes: &[u8]) -> Result<Secret, TooShort> {
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(TooShort);
        }
        Ok(Secret(bytes.into()))
    }

    /// The proof that this end knows the secret.
    #[must_use]
    pub fn prove(&self, role: Role, ends: &Ends) -> Mac {
        self.mac(role, ends).finalize().into_bytes().into()
    }

    /// Whether the other end knows it too. Takes equally long wherever the first wrong byte is.
    #[must_use]
    pub fn verify(&self, role: Role, ends: &Ends, mac: &Mac) -> bool {
        self.mac(role, ends).verify_slice(mac).is_ok()
    }

    fn mac(&self, role: Role, ends: &Ends) -> Hmac<Sha256> {
        let role = match role {
            Role::Dialler => 1,
            Role::Answerer => 2,
        };
        Hmac::<Sha256>::new_from_slice(&self.0)
            .expect("HMAC takes keys of any length")
            .chain_update(LABEL)
            .chain_update([role])
            .chain_update(ends.dialler_nonce.to_le_bytes())
            .chain_update(ends.answerer_nonce.to_le_bytes())
            .chain_update(ends.dialler_node.to_le_bytes())
            .chain_update(ends.answerer_node.to_le_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b"correct horse battery").unwrap()
    }

    fn ends() -> Ends {
        Ends {
            dialler_nonce: 1,
            answerer_nonce: 2,
            dialler_node: 3,
            answerer_node: 4,
        }
    }

    #[test]
    fn each_part_of_a_connection_is_proven() {
        let mac = secret().prove(Role::Dialler, &ends());
        assert!(secret().verify(Role::Dialler, &ends(), &mac));
        let changes: [fn(&mut Ends); 4] = [
            |ends| ends.dialler_nonce ^= 1 << 63,
            |ends| ends.answerer_nonce ^= 1,
            |ends| ends.dialler_node ^= 1 << 127,
            |ends| ends.answerer_node ^= 1,
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut other = ends();
            change(&mut other);
            assert!(!secret().verify(Role::Dialler, &other, &mac), "part {at}");
        }
        let other = Secret::new(b"correct horse batterz").unwrap();
        assert!(!other.verify(Role::Dialler, &ends(), &mac));
        for bit in 0..256 {
            let mut flipped = mac;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !secret().verify(Role::Dialler, &ends(), &flipped),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_proof_cannot_be_handed_back() {
        let from_answerer = secret().prove(Role::Answerer, &ends());
        assert!(!secret().verify(Role::Dialler, &ends(), &from_answerer));
        // Nor with the ends exchanged: the same two nodes, dialling the other way.
        let exchanged = Ends {
            dialler_nonce: 2,
            answerer_nonce: 1,
            dialler_node: 4,
            answerer_node: 3,
        };
        for role in [Role::Dialler, Role::Answerer] {
            assert!(!secret().verify(role, &exchanged, &from_answerer));
        }
    }

    #[test]
    fn weak_secrets_are_refused_and_none_is_printed() {
        assert_eq!(Secret::new(&[b'x'; 15]).unwrap_err(), TooShort);
        assert_eq!(Secret::new(b"").unwrap_err(), TooShort);
        assert_eq!(
            format!("{:?}", Secret::new(&[b'x'; 16]).unwrap()),
            "Secret(..)"
        );
    }
}
