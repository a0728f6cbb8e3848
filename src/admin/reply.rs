//! Errors as HTTP answers, and request bodies as values.

use std::error::Error as _;

use axum::Json;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::ErrorInfo;
use crate::error::{Error, ErrorKind};

/// The outcome of a handler.
pub(super) type Answer<T> = Result<Json<T>, Refused>;

/// An error on its way out.
pub(super) struct Refused(Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        if matches!(self.0.kind(), ErrorKind::Internal | ErrorKind::Corrupt | ErrorKind::Io) {
            tracing::error!("{}", self.0);
        }
        (status_of(self.0.kind()), Json(error_info(&self.0))).into_response()
    }
}

/// The error as a document: what and why in one text, the remedy apart.
pub(super) fn error_info(error: &Error) -> ErrorInfo {
    let mut text = error.what().to_owned();
    let mut cause = error.source();
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    ErrorInfo { error: text, kind: kind_word(error.kind()).into(), remedy: error.remedy_text().map(Into::into) }
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Exists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::ReadOnly | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Stale => StatusCode::GONE,
        ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn kind_word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not_found",
        ErrorKind::Exists => "exists",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Conflict => "conflict",
        ErrorKind::ReadOnly => "read_only",
        ErrorKind::NoSpace => "no_space",
        ErrorKind::Stale => "stale",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Io => "io",
        ErrorKind::Internal => "internal",
    }
}

/// A JSON body. What is wrong with it is told as every other error is.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Error::invalid("request body")
                .because(rejection.body_text())
                .remedy("check that the command line and the daemon are of the same version")
                .into()),
        }
    }
}

/// Items of a listing that are turned into text at a time.
const LIST_STEP: usize = 1024;

/// The document `{name: [...]}`, made while it is sent: a listing of many costs little memory.
pub(super) fn list<T, D>(name: &'static str, items: Vec<T>, show: impl Fn(&T) -> D + Send + 'static) -> Response
where
    T: Send + 'static,
    D: Serialize,
{
    let steps = items.len().div_ceil(LIST_STEP).max(1);
    let piece = move |step: usize| {
        let mut text = if step == 0 { format!("{{\"{name}\":[").into_bytes() } else { Vec::new() };
        for (i, item) in items.iter().enumerate().skip(step * LIST_STEP).take(LIST_STEP) {
            if i > 0 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &show(item)).expect("our documents have string keys only");
        }
        if step + 1 == steps {
            text.extend_from_slice(b"]}");
        }
        Ok::<Bytes, std::convert::Infallible>(text.into())
    };
    let mut response = Response::new(HttpBody::from_stream(stream::iter((0..steps).map(piece))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer of JSON documents, one a line, written as they come.
pub(super) fn lines(body: HttpBody) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// `value` as one line.
pub(super) fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("our documents have string keys only");
    text.push(b'\n');
    text
}
