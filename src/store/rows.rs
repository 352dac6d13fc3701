//! From Rust values to columns and back.

use std::str::FromStr;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// Milliseconds UTC, as times are stored.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// A count as SQLite stores it: its integers are signed.
pub(super) fn signed(number: u64) -> sqlx::Result<i64> {
    i64::try_from(number).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// A list as JSON text, for `json_each`: one statement, whatever the length.
pub(super) fn json<T: serde::Serialize + ?Sized>(list: &T) -> sqlx::Result<String> {
    serde_json::to_string(list).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Values that travel to SQLite in one text.
const BATCH: usize = 1_000;

/// A long list as several JSON texts for `json_each`, so that none takes much memory.
pub(super) fn batches<T: serde::Serialize>(list: &[T]) -> impl Iterator<Item = sqlx::Result<String>> {
    list.chunks(BATCH).map(json)
}

fn wrong(column: &str, found: impl std::fmt::Debug) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("unexpected value {found:?}").into(),
    }
}

/// A column that holds the text form of a value.
pub(super) fn parsed<T: FromStr>(row: &SqliteRow, column: &str) -> sqlx::Result<T> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| wrong(column, text))
}

/// The same, where the column may be empty.
pub(super) fn parsed_or_none<T: FromStr>(row: &SqliteRow, column: &str) -> sqlx::Result<Option<T>> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| wrong(column, text)))
        .transpose()
}

/// A column that holds a time.
pub(super) fn time(row: &SqliteRow, column: &str) -> sqlx::Result<Timestamp> {
    let stored: i64 = row.try_get(column)?;
    Timestamp::from_millisecond(stored).map_err(|_| wrong(column, stored))
}

/// The same, where the column may be empty.
pub(super) fn time_or_none(row: &SqliteRow, column: &str) -> sqlx::Result<Option<Timestamp>> {
    let stored: Option<i64> = row.try_get(column)?;
    stored
        .map(|stored| Timestamp::from_millisecond(stored).map_err(|_| wrong(column, stored)))
        .transpose()
}

/// A column that holds a count.
pub(super) fn count<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> sqlx::Result<T> {
    let stored: i64 = row.try_get(column)?;
    T::try_from(stored).map_err(|_| wrong(column, stored))
}
