//! What ranks tell each other before their messages, so that what does not fit is an error on every rank and not the end of
//! the job inside of MPI.

use crate::collective::CollectiveFailure;

/// Bytes of a header: the length of the message (u64, little endian), a status, the length of a reason, the reason.
pub(super) const BYTES: usize = 128;

const REASON: usize = 10;

/// How one rank comes to a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Header {
    /// With a message of this many bytes.
    Message(u64),
    /// Not at all: this is its last word.
    Left,
    Failed(String),
    Cancelled,
}

impl Header {
    /// A reason is cut to what fits.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (status, length, reason) = match self {
            Self::Message(length) => (0, *length, ""),
            Self::Left => (1, 0, ""),
            Self::Failed(reason) => (2, 0, fitting(reason)),
            Self::Cancelled => (3, 0, ""),
        };
        let mut bytes = vec![0; BYTES];
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        bytes[8] = status;
        // At most BYTES - REASON.
        bytes[9] = reason.len() as u8;
        bytes[REASON..REASON + reason.len()].copy_from_slice(reason.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        match bytes[8] {
            0 => Self::Message(bytes[..8].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))),
            1 => Self::Left,
            3 => Self::Cancelled,
            _ => {
                let end = (REASON + usize::from(bytes[9])).min(bytes.len());
                Self::Failed(String::from_utf8_lossy(&bytes[REASON..end]).into_owned())
            }
        }
    }
}

/// What the headers of all ranks mean. All ranks see the same headers, so all come to the same verdict.
pub(super) fn verdict(headers: &[u8]) -> Result<(), CollectiveFailure> {
    let headers: Vec<Header> = headers.chunks_exact(BYTES).map(Header::decode).collect();
    // A rank that leaves may do so because of one that failed.
    let failed = (0..).zip(&headers).filter_map(|(rank, header)| match header {
        Header::Message(_) => None,
        Header::Failed(reason) => Some((0, CollectiveFailure::Failed { rank, reason: reason.clone() })),
        Header::Cancelled => Some((1, CollectiveFailure::Cancelled { rank })),
        Header::Left => Some((2, CollectiveFailure::Left { rank })),
    });
    if let Some((_, failure)) = failed.min_by_key(|(order, _)| *order) {
        return Err(failure);
    }
    let mut lengths = (0..).zip(&headers).filter_map(|(rank, header)| match header {
        Header::Message(length) => Some((rank, *length)),
        _ => None,
    });
    let Some((rank, length)) = lengths.next() else { return Ok(()) };
    match lengths.find(|(_, other)| *other != length) {
        None => Ok(()),
        Some((other_rank, other_length)) => {
            Err(CollectiveFailure::Lengths { rank, length, other_rank, other_length })
        }
    }
}

/// As much of a reason as a header has room for, in whole characters.
fn fitting(reason: &str) -> &str {
    let room = reason.len().min(BYTES - REASON);
    let end = (0..=room).rev().find(|&end| reason.is_char_boundary(end));
    &reason[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(headers: &[Header]) -> Result<(), CollectiveFailure> {
        verdict(&headers.iter().flat_map(Header::encode).collect::<Vec<u8>>())
    }

    #[test]
    fn headers_come_back() {
        let long = "ü".repeat(200);
        for header in [
            Header::Message(0),
            Header::Message(0x0102_0304_0506_0708),
            Header::Left,
            Header::Cancelled,
            Header::Failed("out of memory".to_owned()),
        ] {
            assert_eq!(Header::decode(&header.encode()), header);
        }
        let cut = Header::decode(&Header::Failed(format!("a{long}")).encode());
        assert_eq!(cut, Header::Failed(format!("a{}", "ü".repeat(58))));
    }

    #[test]
    fn the_first_cause_is_told() {
        assert_eq!(verdict_of(&[Header::Message(7), Header::Message(7)]), Ok(()));
        let lengths = CollectiveFailure::Lengths { rank: 0, length: 7, other_rank: 2, other_length: 8 };
        assert_eq!(verdict_of(&[Header::Message(7), Header::Message(7), Header::Message(8)]), Err(lengths));
        let headers = [Header::Left, Header::Message(7), Header::Cancelled, Header::Failed("x".to_owned())];
        assert_eq!(verdict_of(&headers), Err(CollectiveFailure::Failed { rank: 3, reason: "x".to_owned() }));
        assert_eq!(verdict_of(&headers[..3]), Err(CollectiveFailure::Cancelled { rank: 2 }));
        assert_eq!(verdict_of(&headers[..2]), Err(CollectiveFailure::Left { rank: 0 }));
    }
}
