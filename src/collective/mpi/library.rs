//! The calls of the MPI library, with its status codes as errors. All `unsafe` of the crate's use of MPI is here.
//!
//! The calls are of the C interface: the `mpi` crate drops status codes, and its requests panic when they are given up.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use ::mpi::environment::Threading;
use ::mpi::ffi;
use ::mpi::raw::{AsRaw, FromRaw};
use ::mpi::topology::{Communicator, SimpleCommunicator};

use crate::collective::CollectiveFailure;

/// What a status code means.
fn checked(what: &'static str, code: c_int) -> Result<(), CollectiveFailure> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut length = 0;
    // SAFETY: the text has the room that MPI asks for, and both pointers are valid for the call.
    let explained = unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    let reason = match usize::try_from(length) {
        Ok(length) if explained == ffi::MPI_SUCCESS as c_int && length <= text.len() => {
            String::from_utf8_lossy(&text[..length]).into_owned()
        }
        _ => format!("error {code}"),
    };
    Err(CollectiveFailure::Refused { what, reason })
}

/// Whether MPI may be called here, by a process whose GPU driver has threads of its own.
pub(super) fn check_threads() -> Result<(), CollectiveFailure> {
    let refused = |reason: &str| {
        Err(CollectiveFailure::Refused { what: "starting an MPI collective", reason: reason.to_owned() })
    };
    if !::mpi::environment::is_initialized() || ::mpi::environment::is_finalized() {
        return refused("MPI is not initialized, or is finalized");
    }
    match ::mpi::environment::threading_support() {
        Threading::Single => refused(
            "MPI was initialized for processes of one thread, and drivers of GPUs have more; use initialize_with_threading(Threading::Funneled)",
        ),
        Threading::Funneled if !is_main_thread() => refused(
            "MPI was initialized for calls from the main thread alone (Threading::Funneled), and this is another",
        ),
        _ => Ok(()),
    }
}

fn is_main_thread() -> bool {
    let mut flag = 0;
    // SAFETY: MPI is initialized, and the pointer is valid for the call.
    unsafe { ffi::MPI_Is_thread_main(&mut flag) };
    flag != 0
}

/// Whether a request has completed.
fn test(what: &'static str, request: &mut ffi::MPI_Request) -> Result<bool, CollectiveFailure> {
    let mut flag = 0;
    // SAFETY: the request is one that MPI gave out and that has not completed, and the pointers are valid for the call.
    let code = unsafe { ffi::MPI_Test(request, &mut flag, ffi::RSMPI_STATUS_IGNORE) };
    checked(what, code)?;
    Ok(flag != 0)
}

/// A duplicate of a communicator on its way. All ranks of the communicator must ask for one.
pub(super) struct Duplicate {
    request: ffi::MPI_Request,
    /// Where MPI puts the handle, at any time until the request has completed. Never freed: a few bytes per collective.
    handle: &'static mut MaybeUninit<ffi::MPI_Comm>,
}

impl Duplicate {
    pub(super) fn start(communicator: &impl Communicator) -> Result<Self, CollectiveFailure> {
        let handle = Box::leak(Box::new(MaybeUninit::uninit()));
        // SAFETY: a constant of the C shim.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        // SAFETY: the communicator is live, the request is valid for the call, and the handle lives for ever.
        let code = unsafe { ffi::MPI_Comm_idup(communicator.as_raw(), handle.as_mut_ptr(), &mut request) };
        checked("MPI_Comm_idup", code)?;
        Ok(Self { request, handle })
    }

    pub(super) fn test(&mut self) -> Result<Option<SimpleCommunicator>, CollectiveFailure> {
        if !test("MPI_Comm_idup", &mut self.request)? {
            return Ok(None);
        }
        // SAFETY: MPI has written the handle when the request has completed.
        let handle = unsafe { self.handle.assume_init() };
        // SAFETY: the handle is live, the handler a constant of the C shim.
        let code = unsafe { ffi::MPI_Comm_set_errhandler(handle, ffi::RSMPI_ERRORS_RETURN) };
        // SAFETY: the handle is that of a new communicator within one group, which nobody else has.
        let communicator = unsafe { SimpleCommunicator::from_raw(handle) };
        checked("MPI_Comm_set_errhandler", code)?;
        Ok(Some(communicator))
    }
}

/// An all-gather of messages of one length on its way.
///
/// MPI reads and writes the buffers until the request has completed, and a collective request cannot be cancelled. So
/// whoever drops this before gives the buffers up for ever.
pub(super) struct AllGather {
    request: ffi::MPI_Request,
    completed: bool,
    send: *mut [u8],
    receive: *mut [u8],
}

impl AllGather {
    /// `receive` has the length of `send` for each rank, and `send` at most `c_int::MAX` bytes.
    pub(super) fn start(
        communicator: &SimpleCommunicator,
        send: Vec<u8>,
        receive: Vec<u8>,
    ) -> Result<Self, CollectiveFailure> {
        let ranks = usize::try_from(communicator.size()).ok();
        let count = c_int::try_from(send.len()).ok();
        let (Some(count), true) =
            (count, ranks.and_then(|ranks| send.len().checked_mul(ranks)) == Some(receive.len()))
        else {
            let reason = format!("{} bytes for messages of {}", receive.len(), send.len());
            return Err(CollectiveFailure::Refused { what: "MPI_Iallgather", reason });
        };
        // Plain pointers from here on: a `Box` would promise that nobody else writes there.
        let mut gather = Self {
            // SAFETY: a constant of the C shim.
            request: unsafe { ffi::RSMPI_REQUEST_NULL },
            completed: false,
            send: Box::into_raw(send.into_boxed_slice()),
            receive: Box::into_raw(receive.into_boxed_slice()),
        };
        // SAFETY: the communicator is live; the buffers have the lengths that are told and are freed by `Drop` alone, after the
        // request has completed.
        let code = unsafe {
            ffi::MPI_Iallgather(
                gather.send.cast_const().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                gather.receive.cast(),
                count,
                ffi::RSMPI_UINT8_T,
                communicator.as_raw(),
                &mut gather.request,
            )
        };
        checked("MPI_Iallgather", code)?;
        Ok(gather)
    }

    /// What all ranks sent, one after the other, once it is there.
    pub(super) fn test(&mut self) -> Result<Option<&[u8]>, CollectiveFailure> {
        if !self.completed {
            self.completed = test("MPI_Iallgather", &mut self.request)?;
        }
        // SAFETY: the buffer is this value's, and MPI no longer writes to it.
        Ok(self.completed.then(|| unsafe { &*self.receive }))
    }
}

impl Drop for AllGather {
    fn drop(&mut self) {
        if self.completed {
            // SAFETY: the pointers came from boxes, are freed here alone, and MPI no longer uses them.
            unsafe {
                drop(Box::from_raw(self.send));
                drop(Box::from_raw(self.receive));
            }
        }
    }
}
