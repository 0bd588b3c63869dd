//! Where the values of keys are while their jobs run.
//!
//! A host has one key of its own, in a file that nobody else may read. The
//! values of its own endpoint's keys follow from that key and their ids, so they
//! stand nowhere, and every start finds them again. What others
//! have made is sealed with it, a file a key beside the journals, until
//! it is revoked.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use leasehold_core::{protocol::credential::Constraints, secret::Secret};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use serde::{Deserialize, Serialize};

use super::{Issued, KeyId};
use crate::clock;

/// The file of the host's key, in the data folder.
pub const KEY_FILE: &str = "credential.key";

/// The folder of sealed keys, in the data folder.
const SEALED: &str = "credentials";

/// Values that can be found again.
pub struct Vault {
    key: hmac::Key,
    seal: LessSafeKey,
    sealed: PathBuf,
}

/// A key that somebody else made, as it is sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    scheme: String,
    value: String,
    endpoint: String,
    profile: Option<String>,
    constraints: Constraints,
}

impl Vault {
    /// Opens the vault of a data folder, and makes its key if there is none.
    ///
    /// # Errors
    ///
    /// If the key cannot be used: what it sealed is lost with it, so no other one takes its place by itself.
    pub fn open(data: &Path) -> Result<Self, String> {
        let (file, sealed) = (data.join(KEY_FILE), data.join(SEALED));
        let problem = |error: io::Error| format!("{}: {error}", file.display());
        if !file.exists() {
            make(data, &file).map_err(problem)?;
        }
        let mode = fs::metadata(&file).map_err(problem)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!("{}: others can read it (mode {mode:o}); it must be 600", file.display()));
        }
        let secret = fs::read(&file).map_err(problem)?;
        if secret.len() != KEY_BYTES {
            return Err(format!("{}: it is no key of {KEY_BYTES} bytes; remove it to have another", file.display()));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&sealed).map_err(problem)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let sealing = hmac::sign(&key, b"leasehold: what seals keys");
        let seal =
            UnboundKey::new(&CHACHA20_POLY1305, sealing.as_ref()).map_err(|_| "no key of 32 bytes".to_owned())?;
        Ok(Self { key, seal: LessSafeKey::new(seal), sealed })
    }

    /// The key of the host's own endpoint of this id.
    pub fn derive(&self, id: KeyId) -> Secret {
        let tag = hmac::sign(&self.key, format!("leasehold: the key of {id}").as_bytes());
        let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Secret::new(format!("lhk_{digits}"))
    }

    /// The name of the host's key, which tells nothing of it: values follow from the same key if it has the same name.
    pub fn name(&self) -> String {
        let tag = hmac::sign(&self.key, b"leasehold: the name of what makes keys");
        tag.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Seals a key that somebody else made.
    pub fn keep(&self, id: KeyId, issued: &Issued) -> io::Result<()> {
        let Issued { scheme, value, endpoint, profile, constraints } = issued.clone();
        let kept = Kept { scheme, value: value.expose().to_owned(), endpoint, profile, constraints };
        let mut bytes = serde_json::to_vec(&kept)?;
        let nonce: [u8; NONCE_LEN] = clock::random();
        let sealed = self.seal.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(id.to_string().as_bytes()),
            &mut bytes,
        );
        sealed.map_err(|_| io::Error::other("the key cannot be sealed"))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.sealed)?;
        file.write_all(&nonce)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.file(id)).map_err(|error| error.error)?;
        fs::File::open(&self.sealed)?.sync_all()
    }

    /// Opens what was sealed, if it is there.
    pub fn kept(&self, id: KeyId) -> Option<Issued> {
        let mut bytes = fs::read(self.file(id)).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self.seal.open_in_place(nonce, Aad::from(id.to_string().as_bytes()), sealed).ok()?;
        let Kept { scheme, value, endpoint, profile, constraints } = serde_json::from_slice(opened).ok()?;
        Some(Issued { scheme, value: Secret::new(value), endpoint, profile, constraints })
    }

    /// Forgets a key that is worth nothing any more.
    pub fn forget(&self, id: KeyId) {
        if let Err(error) = fs::remove_file(self.file(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%id, %error, "the file of a revoked key cannot be removed");
        }
    }

    fn file(&self, id: KeyId) -> PathBuf {
        self.sealed.join(id.to_string())
    }
}

const KEY_BYTES: usize = 32;

/// Makes a key that is there as a whole or not at all, for this user alone.
fn make(data: &Path, file: &Path) -> io::Result<()> {
    let mut fresh = tempfile::NamedTempFile::new_in(data)?;
    fresh.write_all(&clock::random::<KEY_BYTES>())?;
    fresh.as_file().sync_all()?;
    match fresh.persist_noclobber(file) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => fs::File::open(data)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::id::{CredentialId, Ulid};

    use super::*;

    fn id(turn: u32) -> KeyId {
        KeyId { credential: CredentialId::new(Ulid::from_parts(0, 1)), turn }
    }

    #[test]
    fn a_value_is_found_again_by_the_next_host_and_by_no_other() {
        let [dir, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [first, next] = [(); 2].map(|()| Vault::open(dir.path()).unwrap());
        let stranger = Vault::open(other.path()).unwrap();
        assert_eq!(first.derive(id(1)), next.derive(id(1)));
        assert_ne!(first.derive(id(1)), first.derive(id(2)));
        assert_ne!(first.derive(id(1)), stranger.derive(id(1)));
        assert!(first.name() == next.name() && first.name() != stranger.name());

        let issued = Issued {
            scheme: "bearer".into(),
            value: Secret::new("sk-of-others"),
            endpoint: "https://a.test".into(),
            profile: None,
            constraints: Constraints::default(),
        };
        first.keep(id(1), &issued).unwrap();
        assert_eq!(next.kept(id(1)).unwrap().value, issued.value);
        let file = fs::read(first.file(id(1))).unwrap();
        assert!(!String::from_utf8_lossy(&file).contains("sk-of-others"));
        // A file under another credential's name, or of another host, is no key.
        fs::copy(first.file(id(1)), first.file(id(2))).unwrap();
        fs::copy(first.file(id(1)), stranger.file(id(1))).unwrap();
        assert!(first.kept(id(2)).is_none() && stranger.kept(id(1)).is_none());
        first.forget(id(1));
        assert!(next.kept(id(1)).is_none());
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        drop(Vault::open(dir.path()).unwrap());
        let file = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Vault::open(dir.path()).is_err_and(|error| error.contains("600")));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "short").unwrap();
        assert!(Vault::open(dir.path()).is_err_and(|error| error.contains(KEY_FILE)));
    }
}
