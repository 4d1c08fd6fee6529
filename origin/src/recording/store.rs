//! Where recordings are put: a directory, or a bucket of S3 or of something that speaks like it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use secrecy::ExposeSecret as _;
use tokio::io::AsyncWriteExt as _;

use super::spool::Spool;
use crate::config::{RecordingStore, S3};

/// A part of an upload, held in memory; S3 takes none below 5 MiB but the last.
const PART_BYTES: usize = 5 * 1024 * 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_mins(1);
/// The whole upload is tried again anyway, so that a single request need not be for long.
const RETRY_LIMIT: Duration = Duration::from_secs(20);

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The directory cannot be made.
    #[error("the directory of RECORDING_STORE cannot be used")]
    Directory(#[from] std::io::Error),
    /// The bucket's settings.
    #[error("RECORDING_STORE cannot be used")]
    Store(#[from] object_store::Error),
}

/// The store.
#[derive(Clone, Debug)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Store {
    pub(super) fn open(config: &RecordingStore) -> Result<Self, StoreFault> {
        match config {
            RecordingStore::Directory(directory) => {
                std::fs::create_dir_all(directory)?;
                let objects = LocalFileSystem::new_with_prefix(directory)?;
                Ok(Self { objects: Arc::new(objects), prefix: Path::default() })
            }
            RecordingStore::S3(s3) => {
                Ok(Self { objects: Arc::new(bucket(s3)?), prefix: Path::from(s3.prefix.as_str()) })
            }
        }
    }

    /// Puts a recording at its key; nothing is there before all of it is. Tells its size.
    pub(super) async fn put(&self, key: &str, spool: &mut Spool) -> std::io::Result<u64> {
        let path: Path = self.prefix.parts().chain(Path::from(key).parts()).collect();
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.objects), path, PART_BYTES).with_max_concurrency(1);
        match spool.write_wav(&mut writer).await {
            Ok(bytes) => {
                writer.shutdown().await?;
                Ok(bytes)
            }
            Err(error) => {
                // Parts that stay behind cost money; what fails here is up to the bucket's own rules.
                let _ = writer.abort().await;
                Err(error)
            }
        }
    }
}

fn bucket(s3: &S3) -> object_store::Result<object_store::aws::AmazonS3> {
    let options = ClientOptions::new().with_connect_timeout(CONNECT_LIMIT).with_timeout(REQUEST_LIMIT);
    let retry = RetryConfig { max_retries: 3, retry_timeout: RETRY_LIMIT, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name(&s3.bucket).with_region(&s3.region).with_retry(retry);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some((id, secret)) = &s3.key {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose_secret());
    }
    let plain = s3.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
    builder.with_client_options(options.with_allow_http(plain)).build()
}

#[cfg(test)]
mod tests;
