//! Every change through the API is in the audit log, whatever its endpoint.
//!
//! Owns the step between admission and the handlers: a request that may change something is noted before its
//! handler runs, with the objects that it names as they are; and its outcome, with these objects as they are
//! then, before it is answered. An answer that is a stream notes its outcome itself, at its end ([`Ticket`]).
//!
//! Failure story: if the log cannot be written, the request is refused and nothing is changed. If it fails
//! after the change, the caller is told that, and that the change may be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body as HttpBody, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{Answer, Refused};
use super::router::MAX_BODY;
use super::types::{AuditList, ErrorInfo};
use super::views::{version_name, version_of};
use super::{Context, Peer};
use crate::audit::{Actor, Asked, Deed, Filter, Outcome};
use crate::env::Time;
use crate::error::{Error, Result};
use crate::image::{
    self, CloneRecord, ExportId, ImageId, ImageRecord, OperationId, OperationRecord, Selector, VersionNumber,
};

/// Clones of a change that are told one by one; of more only how many show which version.
const MAX_TOLD: usize = 8;
/// Longest body of a request or an answer that is looked at in full, in bytes.
const MAX_PARSED: usize = 256 * 1024;

/// A change without an outcome yet, for its handler: one that answers before the end, or knows what became of many
/// clones.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Mutex<Noted>>);

struct Noted {
    asked: Option<Asked>,
    shown: Option<Versions>,
}

/// How many clones show which version.
pub(super) type Versions = BTreeMap<(ImageId, VersionNumber), usize>;

impl Ticket {
    /// From now on the handler sees to the outcome.
    pub fn take(&self) -> Option<Asked> {
        self.0.lock().asked.take()
    }

    /// What the clones of the change show after it, so that nobody has to look at each of them.
    pub fn show(&self, versions: Versions) {
        self.0.lock().shown = Some(versions);
    }

    fn shown(&self) -> Option<Versions> {
        self.0.lock().shown.take()
    }
}

/// Note `request`, if it may change anything, and what becomes of it.
pub(super) async fn audit(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    // It goes on to its end, and into the log, also if the caller goes away.
    let noted = tokio::spawn(async move { noted(&cx, peer, request, next).await });
    let died = |e| Err(Error::internal("a request died").because(e).into());
    noted.await.unwrap_or_else(died).unwrap_or_else(IntoResponse::into_response)
}

async fn noted(cx: &Context, peer: Peer, request: Request, next: Next) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.map_err(|e| {
        Error::invalid("request body").because(e).remedy(format!("send at most {MAX_BODY} bytes, or less at a time"))
    })?;
    let subject = Subject::of(parts.uri.path(), &body);
    let before = subject.seen(&cx.catalog.state());
    let deed = Deed {
        actor: actor(cx, peer),
        action: format!("{} {}", parts.method, parts.uri.path()),
        request: document(&body),
        before: before.told(),
    };
    let asked = Some(cx.fleet.audit().ask(deed).await?);
    let ticket = Ticket(Arc::new(Mutex::new(Noted { asked, shown: None })));
    let mut request = Request::from_parts(parts, HttpBody::from(body));
    request.extensions_mut().insert(ticket.clone());
    let response = next.run(request).await;
    let Some(asked) = ticket.take() else { return Ok(response) };
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|e| Error::internal("reading an answer").because(e))?;
    let outcome = if parts.status.is_success() {
        let now = before.again(&subject, &cx.catalog.state(), ticket.shown());
        done(&body, now.told())
    } else {
        Outcome::failed(serde_json::from_slice::<ErrorInfo>(&body).map_or(parts.status.to_string(), |info| info.error))
    };
    asked.done(outcome).await?;
    Ok(Response::from_parts(parts, HttpBody::from(body)))
}

pub(super) fn actor(cx: &Context, peer: Peer) -> Actor {
    let who = peer.uid.map_or_else(|| "unknown".to_owned(), |uid| format!("uid {uid}"));
    Actor { who, pid: peer.pid, from: format!("unix:{}", cx.socket.display()) }
}

fn done(answer: &Bytes, now: Value) -> Outcome {
    Outcome::done(json!({ "answer": document(answer), "objects": now })).by(operations(answer))
}

/// The operation that an answer names, or those that it names for single clones.
fn operations(answer: &Bytes) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let clones = answer["clones"].as_array().into_iter().flatten();
    let named: BTreeSet<_> = clones.chain([&answer]).filter_map(|item| item["operation"].as_str()).collect();
    if named.is_empty() { None } else { Some(named.into_iter().collect::<Vec<_>>().join(", ")) }
}

/// A body, if it is a short document.
fn document(body: &Bytes) -> Value {
    match body.len() {
        0 => Value::Null,
        len if len > MAX_PARSED => json!({ "bytes_left_out": len }),
        _ => serde_json::from_slice(body).unwrap_or(Value::Null),
    }
}

/// What a request is about, as far as its path and its body name it, or the operation that its path names.
#[derive(Default)]
struct Subject {
    clones: Vec<String>,
    select: Option<Selector>,
    /// All clones are meant, or all of `image`, if none is named.
    all: bool,
    image: Option<String>,
    /// Its clones are meant, and its image.
    operation: Option<OperationId>,
}

/// The fields by which bodies name objects.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    names: Vec<String>,
    clones: Vec<String>,
    name: Option<String>,
    select: Option<String>,
    image: Option<String>,
}

impl Subject {
    fn of(path: &str, body: &Bytes) -> Self {
        let Body { names, clones, name, select, image } = serde_json::from_slice(body).unwrap_or_default();
        let mut parts = path.split('/').skip(2);
        let (kind, named) = (parts.next().unwrap_or_default(), parts.next().map(str::to_owned));
        let image = image.map(|image| image.split('@').next().unwrap_or_default().to_owned());
        if kind == "images" {
            let named = named.or(names.into_iter().next());
            return Self { image: named.and_then(|name| name.split('@').next().map(str::to_owned)), ..Self::default() };
        }
        if kind == "operations"
            && let Some(named) = named
        {
            return Self { operation: named.parse().ok(), ..Self::default() };
        }
        let named = named.filter(|_| kind == "clones");
        let clones: Vec<_> = names.into_iter().chain(clones).chain(name).chain(named).collect();
        let select = select.and_then(|selector| selector.parse().ok());
        let all = clones.is_empty() && select.is_none() && ["repoint", "operations", "pins"].contains(&kind);
        Self { clones, select, all, image, operation: None }
    }

    fn seen(&self, state: &image::State) -> Seen {
        let (image, clones) = (self.image(state), self.clones(state));
        let image = image.map(|image| told_image(state, image));
        Seen { ids: clones.iter().map(|clone| clone.id).collect(), clones: told(state, &clones), image }
    }

    fn operation<'a>(&self, state: &'a image::State) -> Option<&'a Arc<OperationRecord>> {
        self.operation.and_then(|id| state.operation(id))
    }

    fn image<'a>(&self, state: &'a image::State) -> Option<&'a Arc<ImageRecord>> {
        match self.operation(state) {
            Some(operation) => state.image(operation.image),
            None => state.image_named(self.image.as_ref()?),
        }
    }

    fn clones<'a>(&'a self, state: &'a image::State) -> Vec<&'a Arc<CloneRecord>> {
        let image = self.image(state);
        match (&self.select, self.all, image) {
            (Some(selector), _, Some(image)) => {
                state.clones_of(image.id).filter(|clone| selector.matches(&clone.labels)).collect()
            }
            (Some(selector), _, None) => state.select(selector).collect(),
            (None, true, Some(image)) => state.clones_of(image.id).collect(),
            (None, true, None) => state.clones().collect(),
            (None, false, _) => match self.operation(state) {
                Some(operation) => {
                    operation.plan.waves.iter().flatten().filter_map(|id| state.clone_by_id(*id)).collect()
                }
                None => {
                    let mut known = BTreeSet::new();
                    let named = self.clones.iter().filter_map(|name| state.clone_named(name));
                    named.filter(|clone| known.insert(clone.id)).collect()
                }
            },
        }
    }
}

fn told_image(state: &image::State, image: &ImageRecord) -> Value {
    let versions: Vec<_> = state.versions_of(image.id).map(|v| version_name(&image.name, v.number)).collect();
    json!({ "name": &*image.name, "labels": image.labels, "tags": image.tags, "versions": versions,
            "switch": image.policy })
}

/// The objects of a request, at one revision.
struct Seen {
    ids: Vec<ExportId>,
    clones: Value,
    image: Option<Value>,
}

impl Seen {
    /// The same objects, or those that have the names now; of many clones what is known to be `shown`.
    fn again(self, subject: &Subject, state: &image::State, shown: Option<Versions>) -> Self {
        if self.ids.is_empty() {
            return subject.seen(state);
        }
        let image = subject.image(state).map(|image| told_image(state, image));
        let clones = match shown.filter(|_| self.ids.len() > MAX_TOLD) {
            Some(versions) => told_together(state, &versions),
            None => {
                let clones: Vec<_> = self.ids.iter().filter_map(|id| state.clone_by_id(*id)).collect();
                told(state, &clones)
            }
        };
        Self { clones, image, ..self }
    }

    fn told(&self) -> Value {
        json!({ "clones": self.clones, "image": self.image })
    }
}

/// Few clones one by one, many by the versions that they show.
fn told(state: &image::State, clones: &[&Arc<CloneRecord>]) -> Value {
    if clones.len() <= MAX_TOLD {
        return clones.iter().map(|clone| told_alone(state, clone)).collect();
    }
    let mut versions = Versions::new();
    for clone in clones {
        *versions.entry((clone.image, clone.view.version)).or_default() += 1;
    }
    told_together(state, &versions)
}

fn told_together(state: &image::State, versions: &Versions) -> Value {
    let count: usize = versions.values().sum();
    let name = |(image, number)| state.image(image).map_or_else(String::new, |i| version_name(&i.name, number));
    let versions: BTreeMap<_, _> = versions.iter().map(|(version, clones)| (name(*version), *clones)).collect();
    json!({ "count": count, "showing": versions })
}

fn told_alone(state: &image::State, clone: &CloneRecord) -> Value {
    let snapshots: Vec<_> = state.snapshots_of(clone.id).map(|snapshot| snapshot.name.to_string()).collect();
    json!({
        "name": &*clone.name,
        "version": version_of(state, clone, clone.view.version),
        "view": clone.view.number,
        "pins": clone.pins.len(),
        "snapshots": snapshots,
        "labels": clone.labels,
        "policy": clone.export,
        "switch": clone.policy,
        "bytes_quota": clone.quota,
        "staged": clone.staged.as_ref().map(|staged| staged.version),
        "lagging": clone.lagging.map(|lagging| lagging.version),
    })
}

/// The query of `mimeo audit`.
#[derive(Deserialize)]
pub(super) struct Which {
    since: Option<String>,
    tail: Option<usize>,
}

pub(super) async fn entries(State(cx): State<Arc<Context>>, Query(which): Query<Which>) -> Answer<AuditList> {
    let since = which.since.as_deref().map(time).transpose()?;
    let entries = cx.fleet.audit().entries(Filter { since, tail: which.tail }).await?;
    Ok(Json(AuditList { entries }))
}

fn time(text: &str) -> Result<Time> {
    let parsed = text.parse::<jiff::Timestamp>();
    let parsed =
        parsed.map_err(|e| Error::invalid(format!("time {text:?}")).because(e).remedy("write it as RFC 3339"))?;
    Ok(Time::new(parsed.as_second(), u32::try_from(parsed.subsec_nanosecond()).unwrap_or(0)))
}
