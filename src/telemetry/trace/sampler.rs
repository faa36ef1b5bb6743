//! Who is traced: a share of what comes in, and whom the caller traces already.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::context::Context;

/// Callers' wishes that are granted in a second. Webhooks come in by a door without a key, so anybody may wish.
const WISHES_MAX: u32 = 100;

/// The share of triggers that are traced, decided where they come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Nothing but what callers trace.
    pub const NOTHING: Self = Self(0);
    /// Random bits that are compared.
    const BITS: u32 = 56;

    /// From 0 (nothing) to 1 (everything).
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn of(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * (1_u64 << Self::BITS) as f64) as u64)
    }

    /// A new trace, or none. The draw is the trace id's own random end, as W3C proposes.
    fn draw(self) -> Option<Context> {
        if self == Self::NOTHING {
            return None;
        }
        let context = Context::new_trace();
        let [.., a, b, c, d, e, f, g] = context.trace_id();
        (u64::from_be_bytes([0, a, b, c, d, e, f, g]) < self.0).then_some(context)
    }
}

impl Default for Share {
    /// One in a hundred.
    fn default() -> Self {
        Self::of(0.01)
    }
}

/// Decides at a door who is traced.
#[derive(Debug)]
pub struct Sampler {
    share: Share,
    /// When the current second began, and wishes granted in it.
    wishes: Mutex<(Instant, u32)>,
}

impl Sampler {
    /// With this share of what brings no trace along.
    pub fn new(share: Share) -> Self {
        Self { share, wishes: Mutex::new((Instant::now(), 0)) }
    }

    /// The span to begin with: a child of the caller's if that is sampled, none if the caller says that it is not, else drawn
    /// where `may_begin`. `headers`: every `traceparent` there is; more than one is as good as none.
    pub fn decide<'a>(&self, mut headers: impl Iterator<Item = &'a [u8]>, may_begin: bool) -> Decision {
        let incoming = headers.next().and_then(Context::parse).filter(|_| headers.next().is_none());
        match incoming {
            Some(incoming) => {
                let parent = (incoming.sampled && self.may_join()).then_some(incoming.context);
                Decision { parent, context: parent.map(Context::new_child) }
            }
            None => Decision { parent: None, context: if may_begin { self.share.draw() } else { None } },
        }
    }

    fn may_join(&self) -> bool {
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if wishes.0.elapsed() >= Duration::from_secs(1) {
            *wishes = (Instant::now(), 0);
        }
        wishes.1 += 1;
        wishes.1 <= WISHES_MAX
    }
}

/// What was decided about something that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The caller's span.
    pub(super) parent: Option<Context>,
    /// The span to begin with; `None`: it is not traced.
    pub(super) context: Option<Context>,
}

impl Decision {
    /// Whether it is traced.
    pub const fn is_traced(&self) -> bool {
        self.context.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_SAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn decide(sampler: &Sampler, headers: &[&'static [u8]]) -> Option<Context> {
        sampler.decide(headers.iter().copied(), true).context
    }

    #[test]
    fn whoever_traces_is_joined_and_who_does_not_is_left_alone() {
        let sampler = Sampler::new(Share::of(1.0));
        let theirs = Context::parse(SAMPLED).unwrap().context;
        let joined = decide(&sampler, &[SAMPLED]).unwrap();
        assert_eq!((joined.trace_id(), joined == theirs), (theirs.trace_id(), false));
        assert_eq!(decide(&sampler, &[NOT_SAMPLED]), None);
        for none in [&[][..], &[&b"nonsense"[..]], &[SAMPLED, SAMPLED]] {
            assert_ne!(decide(&sampler, none).unwrap().trace_id(), theirs.trace_id(), "a new trace");
        }
        assert!(!sampler.decide(std::iter::empty(), false).is_traced());
    }

    #[test]
    fn the_share_is_drawn_and_nothing_and_everything_are_exact() {
        let drawn = |share| (0..20_000).filter(|_| Share::of(share).draw().is_some()).count();
        assert_eq!((drawn(0.0), drawn(1.0)), (0, 20_000));
        // Eight standard deviations either way.
        assert!((1_660..=2_340).contains(&drawn(0.1)), "{}", drawn(0.1));
    }

    #[test]
    fn strangers_cannot_have_everything_traced() {
        let sampler = Sampler::new(Share::NOTHING);
        let granted = (0..10 * WISHES_MAX).filter(|_| decide(&sampler, &[SAMPLED]).is_some()).count();
        assert!((100..=300).contains(&granted), "{granted}");
    }
}
