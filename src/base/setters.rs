//! Methods for the optional fields of a struct that may grow.

/// A method for each of these fields, by its name, which takes a value or an option.
macro_rules! setters {
    (impl<$life:lifetime> $of:ty { $($name:ident: $value:ty),* $(,)? }) => {
        impl<$life> $of {
            $crate::base::setters::setters!($($name: $value),*);
        }
    };
    (impl $of:ty { $($name:ident: $value:ty),* $(,)? }) => {
        impl $of {
            $crate::base::setters::setters!($($name: $value),*);
        }
    };
    ($($name:ident: $value:ty),*) => {
        $(
            #[doc = concat!(
                "The same with [`", stringify!($name), "`](Self#structfield.", stringify!($name), "), or with `None` without it."
            )]
            #[must_use]
            pub fn $name(self, $name: impl Into<Option<$value>>) -> Self {
                Self { $name: $name.into(), ..self }
            }
        )*
    };
}

pub(crate) use setters;
