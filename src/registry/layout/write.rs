//! Blobs written piece by piece into a layout.

use std::io::SeekFrom;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::folder::Folder;
use super::trouble::{Doing, Trouble};
use super::{Layout, READ_SIZE};
use crate::oci::{Digest, Hasher, RepositoryName};
use crate::registry::blob::{BlobWrite, BodyStream, FinishedBlob, SessionState};
use crate::registry::endpoint::UploadHabit;
use crate::registry::error::{ErrorKind, Operation, Result};

impl Layout {
    /// Opens an unfinished write.
    ///
    /// # Errors
    /// `Denied`, `Quota`, `Local`: the directory cannot be made or written.
    pub async fn begin_write(&self, repository: &RepositoryName) -> Result<BlobWrite> {
        let at = self.at(Operation::WriteBlob, Some(repository), None);
        let location = self.run(at, Folder::begin).await?;
        Ok(BlobWrite {
            repository: repository.clone(),
            location,
            min_piece: None,
        })
    }

    /// Looks where an unfinished write stands.
    ///
    /// # Errors
    /// Folders that cannot be read.
    pub async fn resume_write(&self, write: &BlobWrite) -> Result<SessionState> {
        let at = self.at(Operation::WriteBlob, Some(&write.repository), None);
        let name = write.location.clone();
        let size = self.run(at, move |folder| folder.partial_size(&name)).await?;
        Ok(match size {
            Some(offset) => SessionState::Open {
                write: write.clone(),
                offset,
            },
            None => SessionState::Gone,
        })
    }

    /// A file keeps every byte.
    ///
    /// # Errors
    /// None; the type is that of the other kind of end.
    pub async fn upload_habit(&self, _write: &BlobWrite) -> Result<UploadHabit> {
        Ok(UploadHabit::KeepsBytes)
    }

    /// Writes one piece. What lies behind `offset` is dropped.
    ///
    /// # Errors
    /// `Invalid`: fewer bytes than `offset` are held, or the body has another length. `Network`: the body broke off;
    /// what came before that is kept.
    pub async fn write_piece(
        &self,
        write: &BlobWrite,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<(BlobWrite, u64)> {
        let at = self.at(Operation::WriteBlob, Some(&write.repository), None);
        let written = self.append(write, offset, length, body, None).await;
        written.map_err(|trouble| at.fail(trouble))?;
        Ok((write.clone(), offset + length))
    }

    /// Writes the last bytes, compares the digest of the whole and gives the blob its place.
    ///
    /// # Errors
    /// As [`Layout::write_piece`]; `Corrupt`: the bytes have another digest (the unfinished write is dropped).
    pub async fn finish_write(
        &self,
        write: &BlobWrite,
        digest: &Digest,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<FinishedBlob> {
        let at = self.at(
            Operation::WriteBlob,
            Some(&write.repository),
            Some(&digest.clone().into()),
        );
        let mut hasher = self
            .hash_start(write, digest, offset)
            .await
            .map_err(|trouble| at.fail(trouble))?;
        let written = self.append(write, offset, length, body, Some(&mut hasher)).await;
        written.map_err(|trouble| at.fail(trouble))?;
        let found = hasher.finish();
        let (name, wanted) = (write.location.clone(), digest.clone());
        self.run(at, move |folder| {
            if found == wanted {
                let finished = folder.finish(&name, &wanted);
                return finished.inspect_err(|trouble| folder.cancel_if_full(&name, trouble));
            }
            folder.cancel(&name)?;
            let message = format!("the bytes written have the digest {found}; they were dropped");
            Err(Trouble::new(ErrorKind::Corrupt, message))
        })
        .await?;
        Ok(FinishedBlob { digest: digest.clone() })
    }

    /// Gives an unfinished write up.
    pub async fn cancel_write(&self, write: &BlobWrite) {
        let at = self.at(Operation::WriteBlob, Some(&write.repository), None);
        let name = write.location.clone();
        // A file that stays costs space and nothing else.
        let _ = self.run(at, move |folder| folder.cancel(&name)).await;
    }

    /// Writes `length` bytes of `body` at `offset` of an unfinished write, adding them to `hasher`.
    async fn append(
        &self,
        write: &BlobWrite,
        offset: u64,
        length: u64,
        body: BodyStream,
        hasher: Option<&mut Hasher>,
    ) -> Result<(), Trouble> {
        let appended = self.append_pieces(write, offset, length, body, hasher).await;
        if let Err(trouble) = &appended {
            self.folder.cancel_if_full(&write.location, trouble);
        }
        appended
    }

    async fn append_pieces(
        &self,
        write: &BlobWrite,
        offset: u64,
        length: u64,
        mut body: BodyStream,
        mut hasher: Option<&mut Hasher>,
    ) -> Result<(), Trouble> {
        let path = self.folder.held_partial(&write.location)?;
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .await
            .doing("open", &path)?;
        let held = file.metadata().await.doing("read", &path)?.len();
        if held < offset {
            let message = format!("the unfinished write holds {held} bytes, fewer than the offset {offset}");
            return Err(Trouble::new(ErrorKind::Invalid, message));
        }
        file.set_len(offset).await.doing("write", &path)?;
        file.seek(SeekFrom::Start(offset)).await.doing("write", &path)?;
        let mut left = length;
        let mut result = Ok(());
        while let Some(chunk) = body.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    result = Err(Trouble::broken_body(error));
                    break;
                }
            };
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                let message = format!("the body is longer than the {length} bytes announced");
                result = Err(Trouble::new(ErrorKind::Invalid, message));
                break;
            };
            left = rest;
            if let Some(hasher) = hasher.as_deref_mut() {
                hasher.update(&chunk);
            }
            file.write_all(&chunk).await.doing("write", &path)?;
        }
        // tokio's file writes behind our back; only this says that the bytes are there.
        file.flush().await.doing("write", &path)?;
        result?;
        if left > 0 {
            let message = format!("the body ended {left} bytes before the {length} announced");
            return Err(Trouble::new(ErrorKind::Invalid, message));
        }
        Ok(())
    }

    /// A hasher that has seen the first `offset` bytes of an unfinished write.
    async fn hash_start(&self, write: &BlobWrite, digest: &Digest, offset: u64) -> Result<Hasher, Trouble> {
        let mut hasher = digest.hasher();
        if offset == 0 {
            return Ok(hasher);
        }
        let path = self.folder.held_partial(&write.location)?;
        let mut file = tokio::fs::File::open(&path).await.doing("read", &path)?.take(offset);
        let mut buffer = vec![0; READ_SIZE];
        loop {
            match file.read(&mut buffer).await.doing("read", &path)? {
                0 => return Ok(hasher),
                count => hasher.update(&buffer[..count]),
            }
        }
    }
}
