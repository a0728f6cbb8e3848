//! Operations in the state, and the clones that they are still to switch.

use std::sync::Arc;

use super::State;
use super::apply::impossible;
use crate::env::Time;
use crate::error::{Error, Result};
use crate::image::operation::{Advance, GoneClone, OperationRecord, Settled};
use crate::image::record::{CloneRecord, ExportId, OperationId};

impl State {
    /// Oldest first.
    pub fn operations(&self) -> impl DoubleEndedIterator<Item = &Arc<OperationRecord>> {
        self.operations.values()
    }

    pub fn operation(&self, id: OperationId) -> Option<&Arc<OperationRecord>> {
        self.operations.get(&id)
    }

    /// As [`operation`](Self::operation), with an error that names it.
    pub fn find_operation(&self, id: OperationId) -> Result<&Arc<OperationRecord>> {
        self.operation(id).ok_or_else(|| {
            Error::not_found(format!("operation {id} does not exist, or is no longer kept")).remedy("see `mimeo ops`")
        })
    }

    /// The operation of which a wave with this clone is still to come.
    pub fn planned(&self, clone: ExportId) -> Option<OperationId> {
        self.planned.get(&clone).copied()
    }

    pub(super) fn put_operation(&mut self, operation: &OperationRecord) -> Result<()> {
        let operation = Arc::new(operation.clone());
        if let Some(former) = self.operations.insert(operation.id, operation.clone()) {
            self.forget_planned(&former, former.first_to_come(), former.plan.waves.len());
        }
        for id in operation.plan.waves.iter().skip(operation.first_to_come()).flatten() {
            let comes = self.clone_by_id(*id).is_some() && operation.settled_early(*id).is_none();
            if comes && self.planned.insert(*id, operation.id).is_some() {
                return Err(impossible(format!("clone {} is in waves to come of two operations", id.0)));
            }
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, advance: &Advance) -> Result<()> {
        let operation = self.operations.get_mut(&advance.operation).ok_or_else(|| no_operation(advance.operation))?;
        let from = operation.first_to_come();
        Arc::make_mut(operation).advance(advance);
        let operation = operation.clone();
        self.forget_planned(&operation, from, operation.first_to_come());
        Ok(())
    }

    pub(super) fn settle(&mut self, id: OperationId, at: Time, clones: &[Settled]) -> Result<()> {
        let operation = self.operations.get_mut(&id).ok_or_else(|| no_operation(id))?;
        Arc::make_mut(operation).settle(clones, at);
        for settled in clones {
            self.forget_planned_clone(settled.id, id);
        }
        Ok(())
    }

    pub(super) fn remove_operation(&mut self, id: OperationId) -> Result<()> {
        let operation = self.operations.remove(&id).ok_or_else(|| no_operation(id))?;
        self.forget_planned(&operation, operation.first_to_come(), operation.plan.waves.len());
        Ok(())
    }

    /// The waves `from..to` are no longer to come.
    fn forget_planned(&mut self, operation: &OperationRecord, from: usize, to: usize) {
        for id in operation.plan.waves.iter().take(to).skip(from).flatten() {
            self.forget_planned_clone(*id, operation.id);
        }
    }

    /// What was settled early may be in a wave of another operation by now.
    fn forget_planned_clone(&mut self, id: ExportId, operation: OperationId) {
        if self.planned(id) == Some(operation) {
            self.planned.remove(&id);
        }
    }

    /// A clone is removed: whoever is still to switch it remembers its name.
    pub(super) fn note_gone(&mut self, clone: &CloneRecord) {
        let Some(id) = self.planned.remove(&clone.id) else { return };
        if let Some(operation) = self.operations.get_mut(&id) {
            Arc::make_mut(operation).note_gone(GoneClone { id: clone.id, name: clone.name.clone() });
        }
    }
}

fn no_operation(id: OperationId) -> Error {
    impossible(format!("no operation {id}"))
}
