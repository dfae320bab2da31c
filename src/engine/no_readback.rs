//! Reading a buffer back where there is no device.

use super::buffer::Buffer;
use super::prepared::Prepared;
use crate::base::error::{Error, Result};
use crate::engine::context::Context;

pub(crate) async fn read(context: &Context, buffer: &Buffer, offset: u64, len: u64) -> Result<Vec<u8>> {
    read_after(context, &[], buffer, offset, len).await
}

pub(crate) async fn read_after(
    _: &Context,
    _: &[&Prepared],
    _: &Buffer,
    _: u64,
    len: u64,
) -> Result<Vec<u8>> {
    if len == 0 { Ok(Vec::new()) } else { Err(Error::NoDevice) }
}
