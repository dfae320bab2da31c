//! The bindings of all kernels: one number, one name and one direction each.

use super::params::flag;

/// A binding of group 0. Each name has one number in all shaders, so modules compose without collisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Slot {
    Params = 0,
    X = 1,
    Dy = 2,
    Y = 3,
    Dx = 4,
    Gamma = 5,
    Beta = 6,
    Running = 7,
    RunningUpdate = 8,
    Partials = 9,
    PartialsOut = 10,
    Total = 11,
    SavedOut = 12,
    Saved = 13,
    Dgamma = 14,
    Dbeta = 15,
    Residual = 16,
    DResidual = 17,
    Mask = 18,
    Means = 19,
    MeansOut = 20,
    Addend = 21,
    Sum = 22,
    DSum = 23,
    Scales = 24,
    XTangent = 25,
    YTangent = 26,
    GammaTangent = 27,
    BetaTangent = 28,
    PackedOut = 29,
    Alpha = 30,
    Shift = 31,
    Dalpha = 32,
    Dshift = 33,
    Packed = 34,
    Pieces = 35,
    Spans = 36,
    Nodes = 37,
    Layers = 38,
    Batch = 39,
    MixturesOut = 40,
    Mixtures = 41,
}

impl Slot {
    pub const COUNT: usize = 42;

    /// Those that have a place in the parameters, in its order.
    pub const PLACES: [Self; 21] = {
        use Slot::*;
        [
            X,
            Dy,
            Residual,
            Y,
            Dx,
            DResidual,
            Addend,
            Sum,
            DSum,
            XTangent,
            YTangent,
            Gamma,
            Beta,
            Dgamma,
            Dbeta,
            Alpha,
            Shift,
            Dalpha,
            Dshift,
            GammaTangent,
            BetaTangent,
        ]
    };

    /// How many of these are walked; the others are values per slice, per place or of a layer.
    const WALKED: u32 = 11;

    /// The rest: the crate's own buffers.
    const OWN: [Self; 21] = {
        use Slot::*;
        [
            Params,
            Running,
            RunningUpdate,
            Partials,
            PartialsOut,
            Total,
            SavedOut,
            Saved,
            Mask,
            Means,
            MeansOut,
            Scales,
            PackedOut,
            Packed,
            Pieces,
            Spans,
            Nodes,
            Layers,
            Batch,
            MixturesOut,
            Mixtures,
        ]
    };

    /// Its place in [`PLACES`](Self::PLACES).
    pub fn place(self) -> Option<u32> {
        Self::PLACES.iter().position(|&slot| slot == self).map(|place| place as u32)
    }

    /// Whether it is a tensor of the shape of x.
    pub fn is_walked(self) -> bool {
        self.place().is_some_and(|place| place < Self::WALKED)
    }

    /// The bit of `Params::flags` that says that there is such a value.
    pub const fn flag(self) -> u32 {
        match self {
            Slot::Gamma => flag::GAMMA,
            Slot::Beta => flag::BETA,
            Slot::Shift => flag::SHIFT,
            Slot::Dgamma => flag::DGAMMA,
            Slot::Dbeta => flag::DBETA,
            Slot::Dalpha => flag::DALPHA,
            Slot::Dshift => flag::DSHIFT,
            Slot::GammaTangent => flag::GAMMA_TANGENT,
            Slot::BetaTangent => flag::BETA_TANGENT,
            // There is always one.
            _ => 0,
        }
    }

    /// The one that has a number.
    pub fn of_number(number: u32) -> Option<Self> {
        Self::PLACES.into_iter().chain(Self::OWN).find(|&slot| slot as u32 == number)
    }

    /// The name in errors and, but for the crate's own buffers, in the shaders.
    pub const fn name(self) -> &'static str {
        match self {
            Slot::Params => "params",
            Slot::X => "x",
            Slot::Dy => "dy",
            Slot::Y => "y",
            Slot::Dx => "dx",
            Slot::Gamma => "gamma",
            Slot::Beta => "beta",
            Slot::Running | Slot::RunningUpdate => "running statistics",
            Slot::Partials | Slot::PartialsOut => "partials",
            Slot::Total => "a total",
            Slot::SavedOut | Slot::Saved => "saved statistics",
            Slot::Dgamma => "dgamma",
            Slot::Dbeta => "dbeta",
            Slot::Residual => "residual",
            Slot::DResidual => "d_residual",
            Slot::Mask => "mask",
            Slot::Means | Slot::MeansOut => "means",
            Slot::Scales => "scales",
            Slot::Addend => "addend",
            Slot::Sum => "sum",
            Slot::DSum => "d_sum",
            Slot::Alpha => "alpha",
            Slot::Shift => "shift",
            Slot::Dalpha => "dalpha",
            Slot::Dshift => "dshift",
            Slot::XTangent => "x_tangent",
            Slot::YTangent => "y_tangent",
            Slot::GammaTangent => "gamma_tangent",
            Slot::BetaTangent => "beta_tangent",
            Slot::PackedOut | Slot::Packed => "parameters and their tangents",
            Slot::Layers | Slot::Batch => "totals of layers and of the batch",
            Slot::MixturesOut | Slot::Mixtures => "mixtures of statistics",
            Slot::Pieces | Slot::Spans | Slot::Nodes => "segments",
        }
    }

    /// Whether kernels write through this binding.
    pub const fn writes(self) -> bool {
        !matches!(
            self,
            Slot::Params
                | Slot::X
                | Slot::Dy
                | Slot::Residual
                | Slot::Gamma
                | Slot::Beta
                | Slot::Running
                | Slot::Partials
                | Slot::Saved
                | Slot::Mask
                | Slot::Means
                | Slot::Addend
                | Slot::DSum
                | Slot::Alpha
                | Slot::Shift
                | Slot::XTangent
                | Slot::GammaTangent
                | Slot::BetaTangent
                | Slot::Packed
                | Slot::Pieces
                | Slot::Spans
                | Slot::Nodes
                | Slot::Layers
                | Slot::Batch
                | Slot::Mixtures
        )
    }

    /// Whether the caller's buffer is read here, which may also hold one of the outputs (feature `shared` of the shaders).
    pub const fn is_input(self) -> bool {
        matches!(
            self,
            Slot::X
                | Slot::Dy
                | Slot::Residual
                | Slot::Gamma
                | Slot::Beta
                | Slot::Addend
                | Slot::DSum
                | Slot::Alpha
                | Slot::Shift
                | Slot::XTangent
                | Slot::GammaTangent
                | Slot::BetaTangent
                | Slot::Running
                | Slot::Saved
                | Slot::Mask
        )
    }
}
