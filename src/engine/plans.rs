//! Plans that were made before: the policy is pure, so what it decided for a walk it decides again.

use std::sync::Arc;

use super::memo::{Key, Memo};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::plan::{Plan, Walk, plan_per_slice, plan_ragged, plan_walk};

/// Plans by what they depend on besides the device.
#[derive(Debug)]
pub(crate) struct Plans(Memo<Planned>);

#[derive(Debug)]
struct Planned {
    plan: Arc<Plan>,
    /// Whose address is in the key.
    #[expect(dead_code, reason = "kept so that no other plan has its address")]
    of: Option<Arc<Plan>>,
}

impl Plans {
    pub fn new(most: usize) -> Self {
        Self(Memo::new(most))
    }

    fn get(
        &self,
        key: Key,
        of: Option<&Arc<Plan>>,
        plan: impl FnOnce() -> Result<Plan>,
    ) -> Result<Arc<Plan>> {
        if let Some(planned) = self.0.get(&key) {
            return Ok(planned.plan.clone());
        }
        let planned = Planned { plan: Arc::new(plan()?), of: of.cloned() };
        Ok(self.0.insert(key, planned).plan.clone())
    }
}

impl Context {
    /// The plan of a walk, with a reason why it is forced, if it is.
    pub(crate) fn plan_walk(&self, walk: &Walk, reason: Option<&str>) -> Result<Arc<Plan>> {
        self.plans().get(Key::of(("walk", walk, self.tuning(), reason)), None, || {
            let mut plan = plan_walk(walk, self.capabilities(), self.tuning())?;
            plan.reasons.extend(reason.map(str::to_owned));
            Ok(plan)
        })
    }

    /// That of a fold ([`plan_per_slice`]).
    pub(crate) fn plan_per_slice(
        &self,
        slices: u64,
        partials: u32,
        teams: (u32, u32),
        dtype: DType,
    ) -> Result<Arc<Plan>> {
        self.plans().get(Key::of(("slices", slices, partials, teams, dtype, self.tuning())), None, || {
            plan_per_slice(slices, partials, teams, dtype, self.capabilities(), self.tuning())
        })
    }

    /// That of a walk over rows of so many columns in so many pieces ([`plan_ragged`]).
    pub(crate) fn plan_ragged(&self, walk: &Walk, columns: u64, pieces: u64) -> Result<Arc<Plan>> {
        self.plans().get(Key::of(("ragged", walk, columns, pieces, self.tuning())), None, || {
            plan_ragged(walk, columns, pieces, self.capabilities(), self.tuning())
        })
    }

    /// That of a walk shared out among so many teams.
    pub(crate) fn plan_with_teams(&self, plan: &Arc<Plan>, teams: u64) -> Result<Arc<Plan>> {
        let address = Arc::as_ptr(plan) as usize;
        self.plans().get(Key::of(("teams", address, teams)), Some(plan), || {
            Plan::clone(plan).with_teams(teams, self.capabilities())
        })
    }
}
