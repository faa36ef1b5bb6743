//! A `timestamptz` that may hold what no clock shows.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Postgres, Type};

use crate::domain::time::Timestamp;

/// Microseconds from 1970 to 2000, where Postgres starts to count.
const EPOCH: i64 = 946_684_800_000_000;
/// 0001-01-01 and 9999-12-31 at midnight UTC, microseconds since 1970.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_214_400_000_000;

/// Postgres knows times that a program cannot hold: infinity, and years beyond its calendar. Those are `None`. Read from
/// the wire's own form, because a check in SQL costs every row of a million, and the driver's type overflows on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Option<Timestamp>);

impl Moment {
    /// Reads microseconds since 2000.
    fn from_wire(micros: i64) -> Self {
        Self(micros.checked_add(EPOCH).filter(|t| (FIRST..=LAST).contains(t)).map(Timestamp::from_micros))
    }
}

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        <chrono::DateTime<chrono::Utc> as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Moment {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("a time in its binary form was expected".into());
        }
        Ok(Self::from_wire(i64::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_clock_shows_is_none_and_everything_else_is_exact() {
        assert_eq!(Moment::from_wire(0), Moment(Some(Timestamp::from_micros(EPOCH))));
        assert_eq!(Moment::from_wire(-1), Moment(Some(Timestamp::from_micros(EPOCH - 1))));
        // Infinity, and its opposite.
        assert_eq!(Moment::from_wire(i64::MAX), Moment(None));
        assert_eq!(Moment::from_wire(i64::MIN), Moment(None));
        assert_eq!(Moment::from_wire(LAST - EPOCH), Moment(Some(Timestamp::from_micros(LAST))));
        assert_eq!(Moment::from_wire(LAST - EPOCH + 1), Moment(None));
        assert_eq!(Moment::from_wire(FIRST - EPOCH - 1), Moment(None));
    }
}
