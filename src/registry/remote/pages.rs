//! Lists by page numbers, which shift while somebody pushes or deletes.

use std::future::Future;

use crate::registry::Result;

/// Entries of one list: as many as a list by links may have.
const MAX_ENTRIES: usize = 2_000_000;
/// Pages of one list: as many as a list by links may have.
const MAX_PAGES: u32 = 40_000;

/// A page of a list by numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedPage<T> {
    /// What is on it.
    pub entries: Vec<T>,
    /// How many entries all pages have, where that is said.
    pub total: Option<u64>,
    /// True where there is no page after it. A page without entries is the last one anyhow.
    pub last: bool,
}

/// Reads all pages, by numbers from 1. `None` where they never came to as many entries as they said: the list changed
/// while it was read, twice, and whatever it shows may not be all. So it is where a page is that before it, and where there is no
/// end of them.
///
/// # Errors
/// Those of `page`.
pub async fn numbered<T, F, P>(mut page: P) -> Result<Option<Vec<T>>>
where
    T: PartialEq,
    P: FnMut(u32) -> F,
    F: Future<Output = Result<NumberedPage<T>>>,
{
    for _ in 0..2 {
        let read = once(&mut page, false).await?;
        if read.is_whole {
            return Ok(Some(read.entries));
        }
    }
    Ok(None)
}

/// As [`numbered`], for a list that another one completes ([`Ways::hides_tags`](crate::registry::Ways::hides_tags)): what was
/// read counts also where it does not add up. Only a list that says on one page to have another total than on the page before
/// it is read again, once: it changed meanwhile. A total that is always the same counts something else.
///
/// # Errors
/// Those of `page`.
pub async fn numbered_in_part<T, F, P>(mut page: P) -> Result<Vec<T>>
where
    T: PartialEq,
    P: FnMut(u32) -> F,
    F: Future<Output = Result<NumberedPage<T>>>,
{
    let first = once(&mut page, false).await?;
    if !first.has_changed {
        return Ok(first.entries);
    }
    Ok(once(&mut page, true).await?.entries)
}

/// What reading all pages once came to.
struct Reading<T> {
    entries: Vec<T>,
    /// They are as many as was said, and there is an end of them.
    is_whole: bool,
    /// The total was another on one page than on the page before it.
    has_changed: bool,
}

/// Reads all pages; where the total changes only if it is `to_the_end`.
async fn once<T, F, P>(page: &mut P, to_the_end: bool) -> Result<Reading<T>>
where
    T: PartialEq,
    P: FnMut(u32) -> F,
    F: Future<Output = Result<NumberedPage<T>>>,
{
    let mut reading = Reading {
        entries: Vec::new(),
        is_whole: false,
        has_changed: false,
    };
    let mut total = None;
    let mut before = 0;
    for number in 1..=MAX_PAGES {
        let read = page(number).await?;
        if number > 1 && read.total != total {
            reading.has_changed = true;
            if !to_the_end {
                return Ok(reading);
            }
        }
        total = read.total;
        let entries = &mut reading.entries;
        let empty = read.entries.is_empty();
        // What does not know page numbers gives the first for each.
        if !empty && entries.get(before..) == Some(&read.entries[..]) {
            return Ok(reading);
        }
        before = entries.len();
        entries.extend(read.entries);
        let all = total.is_some_and(|total| entries.len() as u64 >= total);
        if empty || read.last || all || entries.len() > MAX_ENTRIES {
            break;
        }
        if number == MAX_PAGES {
            return Ok(reading);
        }
    }
    let count = reading.entries.len();
    let adds_up = count <= MAX_ENTRIES && total.is_none_or(|total| total == count as u64);
    reading.is_whole = adds_up && !reading.has_changed;
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    fn page(entries: &[u32], total: u64) -> NumberedPage<u32> {
        NumberedPage {
            entries: entries.to_vec(),
            total: Some(total),
            last: false,
        }
    }

    #[tokio::test]
    async fn a_list_that_changes_while_it_is_read_is_read_again_once() {
        let quiet = numbered(|number| ready(Ok(page(&[number * 2 - 1, number * 2], 4)))).await;
        assert_eq!(quiet.expect("read"), Some(vec![1, 2, 3, 4]));
        // Something is deleted between the first page and the second: an entry moves to the page that was read.
        let mut asked = 0;
        let once = numbered(|number| {
            asked += 1;
            ready(Ok(match (asked, number) {
                (1, _) => page(&[1, 2], 4),
                (2, _) => page(&[4], 3),
                (_, 1) => page(&[2, 3], 3),
                _ => page(&[4], 3),
            }))
        })
        .await;
        assert_eq!(once.expect("read"), Some(vec![2, 3, 4]));
        let never = numbered(|_| ready(Ok(page(&[], 3)))).await;
        assert_eq!(never.expect("read"), None);
    }

    #[tokio::test]
    async fn a_list_that_another_one_completes_is_read_again_only_where_it_changed() {
        // Its total counts something that it does not show.
        let mut asked = 0;
        let more = numbered_in_part(|number| {
            asked += 1;
            ready(Ok(match number {
                1 => page(&[1, 2], 4),
                2 => page(&[3], 4),
                _ => page(&[], 4),
            }))
        })
        .await;
        assert_eq!((more.expect("read"), asked), (vec![1, 2, 3], 3));
        // It changes all the while.
        let mut asked = 0;
        let restless = numbered_in_part(|number| {
            asked += 1;
            ready(Ok(match number {
                1 => page(&[1, 2], 10 + asked),
                2 => page(&[4], 10 + asked),
                _ => page(&[], 10 + asked),
            }))
        })
        .await;
        assert_eq!((restless.expect("read"), asked), (vec![1, 2, 4], 2 + 3));
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_given_up() {
        // A server that takes no notice of the number.
        let mut asked = 0;
        let same = numbered(|_| {
            asked += 1;
            ready(Ok(NumberedPage {
                entries: vec![1, 2],
                total: None,
                last: false,
            }))
        })
        .await;
        assert_eq!((same.expect("read"), asked), (None, 4));
        // One that goes round.
        let mut asked = 0;
        let round = numbered(|number| {
            asked += 1;
            ready(Ok(NumberedPage {
                entries: vec![number % 2],
                total: None,
                last: false,
            }))
        })
        .await;
        assert_eq!((round.expect("read"), asked), (None, 2 * MAX_PAGES));
    }
}
