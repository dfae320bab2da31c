//! The uniform that every kernel reads: Rust twin of `Params` in shaders/lib/params.wesl, where the fields are explained.

use bytemuck::{NoUninit, Pod, Zeroable};

use super::slot::Slot;
use crate::base::shape::Shape;
use crate::plan::{Plan, Records, WalkKind, Window};

/// Where a tensor, or a value per channel, is in its binding.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Place {
    /// In words where it is walked, else in values.
    pub offset: u32,
    /// Words by which rows and samples are further apart than in a dense one.
    pub row_skip: u32,
    pub sample_skip: u32,
    pub unused: u32,
}

/// An axis of a tensor whose axes are put into another order: its length, and what it is apart in the other tensor.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Axis {
    pub len: u32,
    pub stride: u32,
    pub unused: [u32; 2],
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    /// By [`Slot::place`].
    pub places: [Place; Slot::PLACES.len()],
    pub axes: [Axis; Shape::MAX_RANK],
    pub slices: u32,
    pub records: u32,
    pub blocks: u32,
    pub splits: u32,
    pub slice_words: u32,
    pub tile_words: u32,
    pub span_words: u32,
    pub span_tiles: u32,
    pub run_words: u32,
    pub slice_stride: u32,
    pub run_stride: u32,
    pub step_words: u32,
    pub step_stride: u32,
    pub step_runs: u32,
    pub inner: u32,
    pub elements: u32,
    pub phase: u32,
    pub before: u32,
    pub last_word: u32,
    pub window_slices: u32,
    pub first_slice: u32,
    pub first_split: u32,
    pub first_row: u32,
    pub partials: u32,
    pub first_record: u32,
    pub running_step: u32,
    pub flags: u32,
    pub eps: f32,
    pub old_weight: f32,
    pub new_weight: f32,
    pub nan: f32,
    pub slope: f32,
    pub least_gamma: f32,
    pub zero: u32,
    pub first_column: u32,
    pub mask_first: u32,
    pub mask_lead: u32,
    pub r_max: f32,
    pub d_max: f32,
    pub r_begin: u32,
    pub r_end: u32,
    pub d_begin: u32,
    pub d_end: u32,
    pub record_slices: u32,
    pub record_matrix: u32,
    pub matrix_splits: u32,
    pub window_row: u32,
    pub merged: u32,
    pub count: f32,
    pub parameter_slices: u32,
    pub parameter_rows: u32,
    pub parameter_step: u32,
    pub gamma_step: u32,
    pub beta_step: u32,
    pub gamma_base: f32,
    pub slice_runs: u32,
    pub first_place: u32,
    pub run_places: u32,
    pub samples: u32,
    pub sample_rows: u32,
    pub row_teams: u32,
    pub row_groups: u32,
    pub group_words: u32,
    pub group_column: u32,
    pub row_cycle: u32,
    pub y_scale: f32,
    pub y_zero: f32,
}

/// Bits of `Params::flags`; the constants `FLAG_*` of the shader.
pub(crate) mod flag {
    pub const GAMMA: u32 = 1;
    pub const BETA: u32 = 2;
    pub const TRACK: u32 = 4;
    pub const CUMULATIVE: u32 = 8;
    pub const UNBIASED: u32 = 16;
    pub const DGAMMA: u32 = 32;
    pub const DBETA: u32 = 64;
    pub const ACCUMULATE: u32 = 128;
    pub const SAVE: u32 = 256;
    pub const RECOVER: u32 = 512;
    pub const MASKED: u32 = 1024;
    pub const DIRECTION: u32 = 2048;
    pub const DEVIATION: u32 = 4096;
    pub const LENGTH: u32 = 8192;
    pub const SHIFT: u32 = 1 << 20;
    pub const DALPHA: u32 = 1 << 21;
    pub const DSHIFT: u32 = 1 << 22;
    pub const GAMMA_TANGENT: u32 = 1 << 23;
    pub const BETA_TANGENT: u32 = 1 << 24;
}

/// What the parameters of all dispatches of an operation have in common; the names are those of [`Params`].
#[derive(Clone, Copy, Debug, Default, NoUninit)]
#[repr(C)]
pub(crate) struct Common {
    /// Values of a run, each with parameters of its own, and of a sample, where each has a run of a slice.
    pub places: u64,
    pub sample_len: u64,
    pub axes: [Axis; Shape::MAX_RANK],
    pub partials: u32,
    pub first_record: u32,
    pub running_step: u32,
    pub flags: u32,
    pub eps: f32,
    pub old_weight: f32,
    pub new_weight: f32,
    pub slope: f32,
    pub least_gamma: f32,
    pub r_max: f32,
    pub d_max: f32,
    pub r_begin: u32,
    pub r_end: u32,
    pub d_begin: u32,
    pub d_end: u32,
    pub merged: u32,
    pub count: f32,
    pub parameter_slices: u32,
    pub parameter_rows: u32,
    pub parameter_step: u32,
    pub gamma_step: u32,
    pub beta_step: u32,
    pub gamma_base: f32,
    pub slice_runs: u32,
    pub run_places: u32,
    pub samples: u32,
    pub sample_rows: u32,
    pub row_teams: u32,
    pub row_groups: u32,
    pub group_words: u32,
    pub group_column: u32,
    pub row_cycle: u32,
    pub y_scale: f32,
    pub y_zero: f32,
}

impl Common {
    /// What tells them apart.
    pub fn bits(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// The first of the parameters of an element's slice that the element, or one behind it, has.
    pub fn first_place(&self, element: u64) -> u64 {
        let runs = if self.run_places > 0 { element / self.sample_len.max(1) } else { 0 };
        runs * self.places + element % self.places.max(1)
    }
}

impl Params {
    /// Parameters of a window of a plan; offsets and skips are zero.
    pub fn new(plan: &Plan, window: &Window, common: &Common) -> Self {
        // One step of the walk. Where a slice has one run, the walk never wraps and the product stays unused; it
        // wraps around like the shader's own arithmetic.
        let (step_words, step_runs) = match plan.walk {
            WalkKind::Segments => (plan.team_size % window.run_words, plan.team_size / window.run_words),
            WalkKind::Columns => (0, plan.team_size),
        };
        let elements = window.elements.end - window.elements.start;
        let end = u64::from(window.before) + elements;
        Self {
            slices: plan.slices,
            records: plan.records,
            blocks: window.blocks,
            splits: window.splits,
            slice_words: window.slice_words,
            tile_words: plan.tile_words,
            span_words: window.span_words,
            span_tiles: window.span_tiles,
            run_words: window.run_words,
            slice_stride: window.slice_stride,
            run_stride: window.run_stride,
            step_words,
            step_stride: step_runs.wrapping_mul(window.run_stride),
            step_runs,
            inner: window.inner,
            elements: elements as u32,
            phase: window.phase,
            before: window.before,
            last_word: (end.div_ceil(plan.width.into()) as u32).saturating_sub(1),
            window_slices: window.slices,
            first_slice: window.first_slice,
            first_split: window.first_split,
            first_row: window.first_row,
            first_column: window.first_column,
            partials: common.partials,
            first_record: common.first_record,
            running_step: common.running_step,
            flags: common.flags,
            eps: common.eps,
            old_weight: common.old_weight,
            new_weight: common.new_weight,
            slope: common.slope,
            least_gamma: common.least_gamma,
            r_max: common.r_max,
            d_max: common.d_max,
            r_begin: common.r_begin,
            r_end: common.r_end,
            d_begin: common.d_begin,
            d_end: common.d_end,
            record_slices: plan.slices,
            record_matrix: 0,
            matrix_splits: plan.matrix_splits,
            window_row: match plan.walk {
                WalkKind::Segments => 0,
                WalkKind::Columns => (window.elements.start / u64::from(plan.slices)) as u32,
            },
            merged: common.merged,
            count: common.count,
            parameter_slices: common.parameter_slices,
            parameter_rows: common.parameter_rows,
            parameter_step: common.parameter_step,
            gamma_step: common.gamma_step,
            beta_step: common.beta_step,
            gamma_base: common.gamma_base,
            slice_runs: common.slice_runs,
            first_place: common.first_place(window.elements.start) as u32,
            run_places: common.run_places,
            samples: common.samples,
            sample_rows: common.sample_rows,
            row_teams: common.row_teams,
            row_groups: common.row_groups,
            group_words: common.group_words,
            group_column: common.group_column,
            row_cycle: common.row_cycle,
            axes: common.axes,
            y_scale: common.y_scale,
            y_zero: common.y_zero,
            nan: f32::NAN,
            ..Zeroable::zeroed()
        }
    }

    /// Lets a fold find partial results elsewhere.
    pub fn set_records(&mut self, records: Records) {
        (self.partials, self.record_slices, self.record_matrix) =
            (records.partials, records.slices, records.matrix);
    }

    /// Where a tensor is.
    pub fn place_mut(&mut self, slot: Slot) -> &mut Place {
        // Buffers of the crate's own start at their first element.
        let place = slot.place().unwrap_or_else(|| unreachable!("{slot:?} has no place"));
        &mut self.places[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shader;

    /// Byte offsets of the fields in Rust, in order of declaration.
    fn rust_offsets() -> Vec<(&'static str, usize)> {
        macro_rules! offsets {
            ($($field:ident)*) => { vec![$((stringify!($field), std::mem::offset_of!(Params, $field))),*] };
        }
        offsets! {
            places axes slices records blocks splits slice_words tile_words span_words span_tiles run_words slice_stride run_stride step_words
            step_stride step_runs inner elements phase before last_word window_slices first_slice first_split first_row
            partials first_record running_step flags eps old_weight new_weight nan slope least_gamma zero first_column mask_first mask_lead
            r_max d_max r_begin r_end d_begin d_end record_slices record_matrix matrix_splits window_row merged count
            parameter_slices parameter_rows parameter_step gamma_step beta_step gamma_base slice_runs first_place run_places samples sample_rows
            row_teams row_groups group_words group_column row_cycle y_scale y_zero
        }
    }

    #[test]
    fn rust_and_wgsl_have_the_same_layout() {
        let module = naga::front::wgsl::parse_str(&shader::modules::declarations("lib/params")).unwrap();
        let (size, fields) = shader::reflect::struct_layout(&module, "Params");
        assert_eq!(fields.iter().map(|(name, at)| (name.as_str(), *at)).collect::<Vec<_>>(), rust_offsets());
        assert_eq!(size, size_of::<Params>());
    }

    #[test]
    fn rust_and_wgsl_have_the_same_flags() {
        let module = naga::front::wgsl::parse_str(&shader::modules::declarations("lib/params")).unwrap();
        let rust = [
            ("FLAG_GAMMA", flag::GAMMA),
            ("FLAG_BETA", flag::BETA),
            ("FLAG_TRACK", flag::TRACK),
            ("FLAG_CUMULATIVE", flag::CUMULATIVE),
            ("FLAG_UNBIASED", flag::UNBIASED),
            ("FLAG_DGAMMA", flag::DGAMMA),
            ("FLAG_DBETA", flag::DBETA),
            ("FLAG_ACCUMULATE", flag::ACCUMULATE),
            ("FLAG_SAVE", flag::SAVE),
            ("FLAG_RECOVER", flag::RECOVER),
            ("FLAG_MASKED", flag::MASKED),
            ("FLAG_DIRECTION", flag::DIRECTION),
            ("FLAG_DEVIATION", flag::DEVIATION),
            ("FLAG_LENGTH", flag::LENGTH),
            ("FLAG_SHIFT", flag::SHIFT),
            ("FLAG_DALPHA", flag::DALPHA),
            ("FLAG_DSHIFT", flag::DSHIFT),
            ("FLAG_GAMMA_TANGENT", flag::GAMMA_TANGENT),
            ("FLAG_BETA_TANGENT", flag::BETA_TANGENT),
        ];
        assert_eq!(module.constants.len(), rust.len());
        for (name, value) in rust {
            let (_, constant) =
                module.constants.iter().find(|(_, constant)| constant.name.as_deref() == Some(name)).unwrap();
            let naga::Expression::Literal(naga::Literal::U32(wgsl)) =
                module.global_expressions[constant.init]
            else {
                panic!("{name} is not a u32 literal");
            };
            assert_eq!(wgsl, value, "{name}");
        }
    }
}
