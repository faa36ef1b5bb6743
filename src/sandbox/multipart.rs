//! Request bodies: multipart with repeated fields and bracketed keys, or JSON. Both end as one JSON object.

use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::errors::Problem;
use super::text::opaque;

/// Largest body that is read; the provider's own limit for a mail.
pub(super) const BODY_MAX: usize = 25 * 1024 * 1024;

/// Reads a body. A field that comes more than once becomes a list, `linkedin[api]` becomes `{"linkedin": {"api": ..}}`,
/// a file becomes its name, type, size and digest.
pub(super) async fn read(request: Request) -> Result<Map<String, Value>, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, BODY_MAX)
        .await
        .map_err(|_| Problem::new(400, "content_too_large", format!("The body is larger than {BODY_MAX} bytes.")))?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => match serde_json::from_slice(&bytes) {
            // Some clients send the form's bracketed names in JSON, too.
            Ok(Value::Object(map)) if map.keys().any(|k| k.ends_with(']')) => {
                let mut flat = Map::new();
                map.into_iter().for_each(|(name, value)| put(&mut flat, &name, value));
                Ok(flat)
            }
            Ok(Value::Object(map)) => Ok(map),
            _ => Err(Problem::new(400, "malformed_request", "The body is no JSON object.")),
        },
        "multipart/form-data" => {
            let malformed = |_| Problem::new(400, "malformed_request", "The multipart body cannot be read.");
            let request = Request::from_parts(parts, bytes.into());
            let mut form = Multipart::from_request(request, &())
                .await
                .map_err(|_| Problem::new(400, "malformed_request", "The multipart body has no boundary."))?;
            let mut map = Map::new();
            while let Some(field) = form.next_field().await.map_err(malformed)? {
                let name = field.name().unwrap_or_default().to_owned();
                let value = if let Some(file_name) = field.file_name().map(str::to_owned) {
                    let mime = field.content_type().unwrap_or("application/octet-stream").to_owned();
                    let bytes = field.bytes().await.map_err(malformed)?;
                    let digest = opaque(&Sha256::digest(&bytes).into(), 22);
                    json!({ "file_name": file_name, "mime_type": mime, "file_bytes": bytes.len(), "digest": digest })
                } else {
                    json!(field.text().await.map_err(malformed)?)
                };
                put(&mut map, &name, value);
            }
            Ok(map)
        }
        _ => Err(Problem::new(415, "unsupported_media_type", "Send application/json or multipart/form-data.")),
    }
}

fn put(map: &mut Map<String, Value>, name: &str, value: Value) {
    if let Some((outer, inner)) = name.strip_suffix(']').and_then(|n| n.split_once('[')).filter(|(_, i)| !i.is_empty())
    {
        let object = map.entry(outer).or_insert_with(|| json!({}));
        if let Some(object) = object.as_object_mut() {
            object.insert(inner.to_owned(), value);
        }
        return;
    }
    match map.get_mut(name) {
        None => {
            map.insert(name.to_owned(), value);
        }
        Some(Value::Array(list)) => list.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}
