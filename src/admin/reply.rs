//! Errors as HTTP answers, and request bodies as values.

use std::error::Error as _;

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
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
            Err(rejection) => Err(Error::invalid("request body").because(rejection.body_text()).into()),
        }
    }
}

/// An answer of JSON documents, one a line, written as they come.
pub(super) fn lines(body: axum::body::Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// `value` as one line.
pub(super) fn line<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("our documents have string keys only");
    text.push(b'\n');
    text
}
