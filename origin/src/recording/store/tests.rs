//! A bucket as S3 keeps it, as far as putting objects goes: whole, or in parts that are no object before they are joined.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use shared::CallId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::spool::Label;
use super::super::tracks::Op;
use super::*;

/// All parts but the last have as much.
const SMALLEST_PART: usize = 5 * 1024 * 1024;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Put,
    Begin,
    Part(u16),
    Join,
    Abort,
}

#[derive(Debug, Default)]
struct Kept {
    asked: Vec<Asked>,
    signatures: Vec<String>,
    /// The next request of this kind is refused with this status.
    refusals: VecDeque<(Asked, StatusCode)>,
    uploads: BTreeMap<String, BTreeMap<u16, Bytes>>,
    objects: HashMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct Bucket(Arc<Mutex<Kept>>);

impl Bucket {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nobody panics with it")
    }

    fn refuse(&self, asked: Asked, status: u16) {
        self.kept().refusals.push_back((asked, StatusCode::from_u16(status).expect("a status")));
    }

    /// What was asked for since the last time.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.kept().asked)
    }

    /// A store in the bucket, reached over HTTP.
    async fn open(&self) -> Store {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = axum::Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = RecordingStore::S3(S3 {
            bucket: "recordings".to_owned(),
            prefix: "tandem/eu".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: Some(url.parse().expect("a URL")),
            key: Some(("id".to_owned(), "secret".to_owned().into())),
        });
        Store::open(&config).expect("a store")
    }
}

async fn answer(
    State(bucket): State<Bucket>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let number = || query.get("partNumber").and_then(|number| number.parse().ok());
    let asked = match (method.as_str(), query.contains_key("uploadId")) {
        ("POST", false) if query.contains_key("uploads") => Asked::Begin,
        ("PUT", true) => Asked::Part(number().expect("a part has a number")),
        ("POST", true) => Asked::Join,
        ("DELETE", true) => Asked::Abort,
        ("PUT", false) => Asked::Put,
        other => panic!("{other:?} {uri} is not known here"),
    };
    let mut kept = bucket.kept();
    kept.asked.push(asked);
    let signature = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    kept.signatures.push(signature.to_owned());
    if let Some((_, status)) = kept.refusals.pop_front_if(|(kind, _)| *kind == asked) {
        return (status, "<Error><Code>Refused</Code></Error>").into_response();
    }
    let key = uri.path().to_owned();
    let upload = query.get("uploadId").cloned().unwrap_or_default();
    match asked {
        Asked::Put => {
            kept.objects.insert(key, body.to_vec());
            (StatusCode::OK, [("etag", "\"whole\"")]).into_response()
        }
        Asked::Begin => {
            let id = format!("upload-{}", kept.asked.len());
            kept.uploads.insert(id.clone(), BTreeMap::new());
            format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>")
                .into_response()
        }
        Asked::Part(number) => match kept.uploads.get_mut(&upload) {
            Some(parts) => {
                parts.insert(number, body);
                (StatusCode::OK, [("etag", format!("\"part-{number}\""))]).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Asked::Join => {
            let Some(parts) = kept.uploads.get(&upload) else { return StatusCode::NOT_FOUND.into_response() };
            let last = parts.keys().next_back().copied();
            let is_small = parts.iter().any(|(number, part)| Some(*number) != last && part.len() < SMALLEST_PART);
            let told = String::from_utf8_lossy(&body).into_owned();
            let all_told = parts.keys().all(|number| told.contains(&format!("part-{number}")));
            if is_small || !all_told {
                return (StatusCode::BAD_REQUEST, format!("small: {is_small}, told: {told}")).into_response();
            }
            let whole = kept.uploads.remove(&upload).into_iter().flatten().flat_map(|(_, part)| part).collect();
            kept.objects.insert(key, whole);
            "<CompleteMultipartUploadResult><ETag>\"joined\"</ETag></CompleteMultipartUploadResult>".into_response()
        }
        Asked::Abort => {
            kept.uploads.remove(&upload);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

/// A recording of so many samples in which no two neighbours are alike, and where it lies.
async fn recording(samples: usize) -> (Spool, std::path::PathBuf) {
    let directory = std::env::temp_dir().join(format!("tandem-store-{}", Uuid::now_v7()));
    let id = Uuid::now_v7();
    let label =
        Label { id, call: CallId(id), key: String::new(), started_at: OffsetDateTime::UNIX_EPOCH, is_whole: false };
    let mut spool = Spool::create(&directory, label).await.expect("a spool");
    let audio = (0..=250_u8).cycle().take(samples).collect();
    spool.apply(Op::Caller { silence: 0, audio }).await.expect("room");
    spool.finish(true).await.expect("room");
    (spool, directory)
}

const KEY: &str = "a/b/c.wav";
const PATH: &str = "/recordings/tandem/eu/a/b/c.wav";
/// What lies before the samples.
const HEAD: usize = 58;

#[tokio::test]
async fn a_bucket_gets_the_whole_file_under_its_key() {
    let bucket = Bucket::default();
    let store = bucket.open().await;
    let (mut spool, directory) = recording(1000).await;
    bucket.refuse(Asked::Put, 503);

    let bytes = store.put(KEY, &mut spool).await.expect("it is put");

    assert_eq!(bucket.asked(), [Asked::Put; 2], "refused once, and tried again");
    let kept = bucket.kept();
    let object = &kept.objects[PATH];
    assert_eq!((object.len() as u64, object.len()), (bytes, HEAD + 2 * 1000));
    assert!(object.starts_with(b"RIFF"));
    let signature = &kept.signatures[1];
    assert!(signature.contains("id/") && signature.contains("eu-central-1/s3"), "{signature}");
    drop(kept);
    std::fs::remove_dir_all(&directory).expect("it is there");
}

/// Eight minutes; each part waits for the one before, and one is refused for a moment.
#[tokio::test]
async fn a_long_recording_is_put_in_parts() {
    const SAMPLES: usize = 8 * 60 * 8000;
    let bucket = Bucket::default();
    let store = bucket.open().await;
    let (mut spool, directory) = recording(SAMPLES).await;
    bucket.refuse(Asked::Part(2), 503);

    let bytes = store.put(KEY, &mut spool).await.expect("it is put");

    let parts = [Asked::Begin, Asked::Part(1), Asked::Part(2), Asked::Part(2), Asked::Join];
    assert_eq!(bucket.asked(), parts);
    let kept = bucket.kept();
    assert!(kept.uploads.is_empty());
    let object = &kept.objects[PATH];
    assert_eq!((object.len() as u64, object.len()), (bytes, HEAD + 2 * SAMPLES));
    let left: Vec<u8> = object[HEAD..].iter().copied().step_by(2).collect();
    assert!(left.iter().copied().eq((0..=250_u8).cycle().take(SAMPLES)), "in order and whole");
    drop(kept);
    std::fs::remove_dir_all(&directory).expect("it is there");
}

/// What fails for good leaves neither an object nor parts, which cost money; another attempt finds a clean place.
#[tokio::test]
async fn an_upload_that_fails_leaves_nothing_behind() {
    let bucket = Bucket::default();
    let store = bucket.open().await;
    let (mut spool, directory) = recording(6 * 1024 * 1024).await;
    for refused in [Asked::Begin, Asked::Part(1), Asked::Part(3), Asked::Join] {
        bucket.refuse(refused, 403);
        store.put(KEY, &mut spool).await.expect_err("it is refused");
        let asked = bucket.asked();
        assert_eq!(asked.last() == Some(&Asked::Abort), refused != Asked::Begin, "{asked:?}");
        let kept = bucket.kept();
        assert!(kept.objects.is_empty() && kept.uploads.is_empty(), "{refused:?} {asked:?}");
    }
    let bytes = store.put(KEY, &mut spool).await.expect("it is put");
    assert_eq!(bucket.kept().objects[PATH].len() as u64, bytes);
    std::fs::remove_dir_all(&directory).expect("it is there");
}
