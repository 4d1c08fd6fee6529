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
mod tests {
    use std::sync::Mutex;

    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::{HeaderMap, Method, StatusCode, Uri};
    use axum::response::IntoResponse as _;
    use shared::CallId;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::super::spool::Label;
    use super::super::tracks::Op;
    use super::*;

    #[derive(Debug)]
    struct Seen {
        method: Method,
        path: String,
        signature: String,
        body: Bytes,
    }

    /// Speaks as much S3 as it takes to put a small object, and fails the first time.
    async fn bucket() -> (String, Arc<Mutex<Vec<Seen>>>) {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let answer = |State(seen): State<Arc<Mutex<Vec<Seen>>>>, method, uri: Uri, headers: HeaderMap, body| async move {
            let signature = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let mut seen = seen.lock().expect("nobody panics with it");
            seen.push(Seen { method, path: uri.path().to_owned(), signature: signature.to_owned(), body });
            let status = if seen.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, [("etag", "\"1\"")]).into_response()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, seen)
    }

    #[tokio::test]
    async fn a_bucket_gets_the_whole_file_under_its_key() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, seen) = bucket().await;
        let config = RecordingStore::S3(S3 {
            bucket: "recordings".to_owned(),
            prefix: "tandem/eu".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: Some(url.parse().expect("a URL")),
            key: Some(("id".to_owned(), "secret".to_owned().into())),
        });
        let directory = std::env::temp_dir().join(format!("tandem-store-{}", Uuid::now_v7()));
        let id = Uuid::now_v7();
        let label =
            Label { id, call: CallId(id), key: String::new(), started_at: OffsetDateTime::UNIX_EPOCH, is_whole: false };
        let mut spool = Spool::create(&directory, label).await.expect("a spool");
        spool.apply(Op::Caller { silence: 0, audio: vec![7; 1000] }).await.expect("room");
        spool.finish(true).await.expect("room");

        let bytes = Store::open(&config).expect("a store").put("a/b/c.wav", &mut spool).await.expect("it is put");

        let seen = seen.lock().expect("nobody panics with it");
        let paths: Vec<_> = seen.iter().map(|seen| (seen.method.as_str(), seen.path.as_str())).collect();
        assert_eq!(paths, [("PUT", "/recordings/tandem/eu/a/b/c.wav"); 2], "refused once, and tried again");
        assert!(
            seen[1].signature.contains("id/") && seen[1].signature.contains("eu-central-1/s3"),
            "{}",
            seen[1].signature
        );
        assert_eq!((seen[1].body.len() as u64, bytes), (bytes, 2058));
        assert!(seen[1].body.starts_with(b"RIFF"));
        std::fs::remove_dir_all(&directory).expect("it is there");
    }
}
