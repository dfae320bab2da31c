//! The uniform that every kernel reads: Rust twin of `Params` in shaders/lib/params.wgsl, where the fields are explained.

use bytemuck::{Pod, Zeroable};

use crate::plan::{Plan, WalkKind};

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    pub slices: u32,
    pub records: u32,
    pub blocks: u32,
    pub splits: u32,
    pub slice_words: u32,
    pub tile_words: u32,
    pub run_words: u32,
    pub slice_stride: u32,
    pub run_stride: u32,
    pub step_words: u32,
    pub step_stride: u32,
    pub inner: u32,
    pub elements: u32,
    pub phase: u32,
    pub last_word: u32,
    pub partials: u32,
    pub x_offset: u32,
    pub dy_offset: u32,
    pub y_offset: u32,
    pub dx_offset: u32,
    pub gamma_offset: u32,
    pub beta_offset: u32,
    pub dgamma_offset: u32,
    pub dbeta_offset: u32,
    pub flags: u32,
    pub eps: f32,
    pub old_weight: f32,
    pub new_weight: f32,
    pub count: f32,
    pub nan: f32,
    pub zero: u32,
    pub unused: u32,
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
}

impl Params {
    /// Geometry of a plan; offsets, flags and weights are zero.
    pub fn new(plan: &Plan) -> Self {
        // One step of the walk. Where a slice has one run, the walk never wraps and the product stays unused; it
        // wraps around like the shader's own arithmetic.
        let (step_words, step_stride) = match plan.walk {
            WalkKind::Segments => {
                let runs = plan.team_size / plan.run_words;
                (plan.team_size % plan.run_words, runs.wrapping_mul(plan.run_stride))
            }
            WalkKind::Columns => (0, plan.team_size.wrapping_mul(plan.run_stride)),
        };
        let end = u64::from(plan.phase) + u64::from(plan.elements);
        Self {
            slices: plan.slices,
            records: plan.records,
            blocks: plan.blocks,
            splits: plan.splits,
            slice_words: plan.slice_words,
            tile_words: plan.tile_words,
            run_words: plan.run_words,
            slice_stride: plan.slice_stride,
            run_stride: plan.run_stride,
            step_words,
            step_stride,
            inner: plan.inner,
            elements: plan.elements,
            phase: plan.phase,
            last_word: (end.div_ceil(plan.width.into()) as u32).saturating_sub(1),
            partials: plan.partials(),
            nan: f32::NAN,
            ..Zeroable::zeroed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::shader;

    /// Byte offsets of the fields in Rust, in order of declaration.
    fn rust_offsets() -> Vec<(&'static str, usize)> {
        macro_rules! offsets {
            ($($field:ident)*) => { vec![$((stringify!($field), std::mem::offset_of!(Params, $field))),*] };
        }
        offsets! {
            slices records blocks splits slice_words tile_words run_words slice_stride run_stride step_words step_stride
            inner elements phase last_word partials x_offset dy_offset y_offset dx_offset gamma_offset beta_offset
            dgamma_offset dbeta_offset flags eps old_weight new_weight count nan zero unused
        }
    }

    #[test]
    fn rust_and_wgsl_have_the_same_layout() {
        let module = naga::front::wgsl::parse_str(shader::PARAMS.text).unwrap();
        let (size, fields) = shader::reflect::struct_layout(&module, "Params");
        assert_eq!(fields.iter().map(|(name, at)| (name.as_str(), *at)).collect::<Vec<_>>(), rust_offsets());
        assert_eq!(size, size_of::<Params>());
    }

    #[test]
    fn rust_and_wgsl_have_the_same_flags() {
        let module = naga::front::wgsl::parse_str(shader::PARAMS.text).unwrap();
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
