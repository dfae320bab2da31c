//! One rank's side of the exchange: a gather of headers, then one of messages, call after call; at the end a header that says so.
//!
//! MPI matches gathers by their order alone, so a rank that has begun a call finishes it, also if nobody waits for
//! the result, before it says its last word.

use std::mem;

use ::mpi::topology::SimpleCommunicator;

use super::header::{self, Header};
use super::library::AllGather;
use crate::collective::CollectiveFailure;

pub(super) struct Protocol {
    communicator: Option<SimpleCommunicator>,
    world_size: usize,
    phase: Phase,
    standing: Standing,
}

enum Phase {
    /// Between calls.
    Idle,
    /// What is gathered next is kept, so that nothing can fail between headers and messages.
    Headers {
        gather: AllGather,
        send: Vec<u8>,
        receive: Vec<u8>,
    },
    Messages {
        gather: AllGather,
        length: usize,
    },
}

#[derive(PartialEq)]
enum Standing {
    Member,
    /// To say a last word when the call that is underway is over; `None` once it is underway itself.
    Leaving(Option<Header>),
    /// All ranks know that it is over, and nothing is underway.
    Parted,
    /// Others may still wait for this rank, and MPI for others.
    Lost,
}

impl Protocol {
    pub(super) fn new(communicator: SimpleCommunicator, world_size: usize) -> Self {
        Self { communicator: Some(communicator), world_size, phase: Phase::Idle, standing: Standing::Member }
    }

    /// Begins a call. What this rank cannot do it tells the others in its header.
    pub(super) fn call(&mut self, message: Vec<u8>) -> Result<(), CollectiveFailure> {
        match self.room(message.len()) {
            Ok(receive) => self.begin(&Header::Message(message.len() as u64), message, receive),
            Err(reason) => self.begin(&Header::Failed(reason), Vec::new(), Vec::new()),
        }
    }

    /// Room for messages of this length from all ranks.
    fn room(&self, length: usize) -> Result<Vec<u8>, String> {
        if i32::try_from(length).is_err() {
            return Err(format!("a message of {length} bytes; MPI takes {} at most", i32::MAX));
        }
        let needed = length.checked_mul(self.world_size);
        let mut receive = Vec::new();
        match needed.map(|needed| (needed, receive.try_reserve_exact(needed))) {
            Some((needed, Ok(()))) => receive.resize(needed, 0),
            _ => return Err(format!("out of memory for {} messages of {length} bytes", self.world_size)),
        }
        Ok(receive)
    }

    fn begin(&mut self, header: &Header, send: Vec<u8>, receive: Vec<u8>) -> Result<(), CollectiveFailure> {
        let headers = vec![0; header::BYTES * self.world_size];
        let gather = self.gather(header.encode(), headers)?;
        self.phase = Phase::Headers { gather, send, receive };
        Ok(())
    }

    fn gather(&mut self, send: Vec<u8>, receive: Vec<u8>) -> Result<AllGather, CollectiveFailure> {
        let started = match &self.communicator {
            Some(communicator) => AllGather::start(communicator, send, receive),
            None => Err(CollectiveFailure::Refused {
                what: "MPI_Iallgather",
                reason: "the communicator was given up".to_owned(),
            }),
        };
        started.inspect_err(|_| self.lose())
    }

    /// Goes on with the call that is underway; `None`: not complete yet.
    pub(super) fn step(&mut self) -> Result<Option<Vec<Vec<u8>>>, CollectiveFailure> {
        if let Phase::Headers { gather, .. } = &mut self.phase {
            let verdict = match gather.test() {
                Ok(None) => return Ok(None),
                Ok(Some(headers)) => header::verdict(headers),
                Err(failure) => {
                    self.lose();
                    return Err(failure);
                }
            };
            let Phase::Headers { send, receive, .. } = mem::replace(&mut self.phase, Phase::Idle) else {
                return Ok(None);
            };
            if let Err(failure) = verdict {
                self.standing = Standing::Parted;
                return Err(failure);
            }
            let length = send.len();
            if length == 0 {
                return Ok(Some(vec![Vec::new(); self.world_size]));
            }
            let gather = self.gather(send, receive)?;
            self.phase = Phase::Messages { gather, length };
        }
        if let Phase::Messages { gather, length } = &mut self.phase {
            let length = *length;
            let messages = match gather.test() {
                Ok(None) => return Ok(None),
                Ok(Some(messages)) => messages.chunks_exact(length).map(<[u8]>::to_vec).collect(),
                Err(failure) => {
                    self.lose();
                    return Err(failure);
                }
            };
            self.phase = Phase::Idle;
            return Ok(Some(messages));
        }
        Ok(None)
    }

    /// Will say a last word, unless it is over already.
    pub(super) fn leave(&mut self, last: Header) {
        if self.standing == Standing::Member {
            self.standing = Standing::Leaving(Some(last));
        }
    }

    /// Says the last word; `false`: others have not heard it yet.
    pub(super) fn part(&mut self) -> bool {
        while let Standing::Leaving(last) = &mut self.standing {
            let idle = matches!(self.phase, Phase::Idle);
            match last.take_if(|_| idle) {
                // On an error it is lost.
                Some(last) => drop(self.begin(&last, Vec::new(), Vec::new())),
                None => {
                    if let Ok(None) = self.step() {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Gives up what is underway. MPI keeps the communicator and the buffers.
    pub(super) fn lose(&mut self) {
        self.standing = Standing::Lost;
        self.phase = Phase::Idle;
        mem::forget(self.communicator.take());
    }
}

impl Drop for Protocol {
    fn drop(&mut self) {
        // Freeing a communicator is a call of all its ranks; whoever has parted knows that they come.
        if self.standing != Standing::Parted || ::mpi::environment::is_finalized() {
            self.lose();
        }
    }
}
