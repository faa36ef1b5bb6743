//! What names a trace while it travels: the W3C header `traceparent`, and who is sampled.

use std::fmt;

use uuid::Uuid;

/// Length of a header of version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
const HEADER_LEN: usize = 55;
/// The flag that says that whoever called records the trace.
const SAMPLED: u8 = 1;

/// A sampled trace, and the span in it that whatever follows is a child of. What is not sampled has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    trace: [u8; 16],
    span: [u8; 8],
}

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The trace, and the caller's span.
    pub context: Context,
    /// Whether the caller records it.
    pub sampled: bool,
}

impl Context {
    /// The first span of a new trace.
    pub(super) fn new_trace() -> Self {
        Self { trace: Uuid::new_v4().into_bytes(), span: new_span() }
    }

    /// A new span of the same trace.
    pub(super) fn new_child(self) -> Self {
        Self { span: new_span(), ..self }
    }

    /// Reads a `traceparent` as <https://www.w3.org/TR/trace-context/> says, strictly: lower case, nothing around it, no id of
    /// zeroes. A version that is not known yet is read as far as version 00 goes. `None`: not one; begin a new trace.
    pub fn parse(header: &[u8]) -> Option<Incoming> {
        let (known, rest) = header.split_at_checked(HEADER_LEN)?;
        let version = hex::<1>(known.get(0..2)?)?;
        let well_ended = match version {
            [0] => rest.is_empty(),
            [0xff] => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        if !well_ended || [2, 35, 52].iter().any(|at| known.get(*at) != Some(&b'-')) {
            return None;
        }
        let (trace, span) = (hex::<16>(known.get(3..35)?)?, hex::<8>(known.get(36..52)?)?);
        let [flags] = hex::<1>(known.get(53..55)?)?;
        (trace != [0; 16] && span != [0; 8])
            .then_some(Incoming { context: Self { trace, span }, sampled: flags & SAMPLED != 0 })
    }

    /// The trace's id, 16 bytes.
    pub const fn trace_id(self) -> [u8; 16] {
        self.trace
    }

    /// The span's id, 8 bytes.
    pub const fn span_id(self) -> [u8; 8] {
        self.span
    }
}

/// The header `traceparent` that whoever comes next is given.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", Hex(&self.trace), Hex(&self.span))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes as they stand in headers and logs.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Random and not zero: a UUID's version and variant are in the bytes that are left out, or are ones.
fn new_span() -> [u8; 8] {
    let [.., a, b, c, d, e, f, g, h] = Uuid::new_v4().into_bytes();
    [a, b, c, d, e, f, g, h]
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn sampled(header: &str) -> Option<bool> {
        Context::parse(header.as_bytes()).map(|incoming| incoming.sampled)
    }

    #[test]
    fn a_header_is_read_and_written() {
        let read = Context::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((read.context.to_string().as_str(), read.sampled), (GOOD, true));
        let child = read.context.new_child();
        assert_eq!((child.trace_id(), child == read.context), (read.context.trace_id(), false));
        assert_eq!(size_of::<Option<Context>>(), 25, "it travels with everything in flight");
    }

    #[test]
    fn flags_and_versions_that_are_not_known_yet_are_read_as_far_as_they_are() {
        for (flags, says) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            assert_eq!(sampled(&format!("{}{flags}", &GOOD[..53])), Some(says), "{flags}");
        }
        assert_eq!(sampled(&format!("01{}-what the future brings", &GOOD[2..])), Some(true));
        assert_eq!(sampled(&format!("01{}x", &GOOD[2..])), None);
    }

    #[test]
    fn what_is_not_one_is_none() {
        let zeroes = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let no_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        let longer = format!("{GOOD}-00");
        let (upper, spaced, wrong_dash) = (GOOD.to_uppercase(), format!(" {GOOD}"), GOOD.replacen('-', "_", 1));
        let invalid = format!("ff{}", &GOOD[2..]);
        for header in ["", "00", &GOOD[..54], &zeroes, &no_span, &longer, &upper, &spaced, &wrong_dash, &invalid] {
            assert_eq!(sampled(header), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_what_is_read_is_what_was_written(
            bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0..56_usize, with in any::<u8>()
        ) {
            // Raw bytes, and a good header with one byte changed and cut off somewhere.
            let mut near = GOOD.as_bytes().to_vec();
            if let Some(byte) = near.get_mut(cut) {
                *byte = with;
            }
            for header in [bytes.as_slice(), &near, &near[..cut.min(55)]] {
                if let Some(read) = Context::parse(header) {
                    let written = read.context.to_string();
                    prop_assert_eq!(&written.as_bytes()[2..53], &header[2..53]);
                    prop_assert_eq!(Context::parse(written.as_bytes()).map(|again| again.context), Some(read.context));
                }
            }
        }
    }
}
