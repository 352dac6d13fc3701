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

/// As [`numbered_in_part`], for pages without a total, which show the newest first. True where the list is whole: it is one
/// page, or its last page and then its first are the same when they are read again, and no entry is on two pages. So whatever
/// was pushed meanwhile is seen, and what was deleted after the last page was read.
///
/// # Errors
/// Those of `page`.
pub async fn numbered_and_seen_again<T, F, P>(mut page: P) -> Result<(Vec<T>, bool)>
where
    T: PartialEq,
    P: FnMut(u32) -> F,
    F: Future<Output = Result<NumberedPage<T>>>,
{
    let read = once(&mut page, false).await?;
    let pages: Vec<&[T]> = read.pages().collect();
    let (Some(first), Some(last)) = (pages.first(), pages.last()) else {
        return Ok((read.entries, read.is_whole));
    };
    let is_on_two = |two: &[&[T]]| two[0].iter().any(|entry| two[1].contains(entry));
    let is_whole = read.is_whole
        && (pages.len() == 1
            || !pages.windows(2).any(is_on_two)
                && page(u32::try_from(pages.len()).unwrap_or(u32::MAX)).await?.entries == *last
                && page(1).await?.entries == *first);
    Ok((read.entries, is_whole))
}

/// What reading all pages once came to.
struct Reading<T> {
    entries: Vec<T>,
    /// Where each page begins in them.
    starts: Vec<usize>,
    /// They are as many as was said, and there is an end of them.
    is_whole: bool,
    /// The total was another on one page than on the page before it.
    has_changed: bool,
}

impl<T> Reading<T> {
    fn pages(&self) -> impl Iterator<Item = &[T]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.entries.len()]);
        self.starts
            .iter()
            .zip(ends)
            .map(|(&start, end)| &self.entries[start..end])
    }
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
        starts: Vec::new(),
        is_whole: false,
        has_changed: false,
    };
    let mut total = None;
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
        let before = reading.starts.last().copied().unwrap_or_default();
        if !empty && entries.get(before..) == Some(&read.entries[..]) {
            return Ok(reading);
        }
        reading.starts.push(entries.len());
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

    /// Pages of two of what `entries` gives for the nth request, counted from 1.
    async fn seen_again(entries: impl Fn(u32) -> Vec<u32>) -> (Vec<u32>, bool, u32) {
        let mut asked = 0;
        let read = numbered_and_seen_again(|number| {
            asked += 1;
            let entries = entries(asked);
            let before = 2 * (number as usize - 1);
            ready(Ok(NumberedPage {
                entries: entries.iter().skip(before).take(2).copied().collect(),
                total: None,
                last: before + 2 >= entries.len(),
            }))
        })
        .await;
        let (read, is_whole) = read.expect("read");
        (read, is_whole, asked)
    }

    #[tokio::test]
    async fn a_list_without_a_total_is_whole_where_its_ends_are_the_same_when_seen_again() {
        assert_eq!(seen_again(|_| vec![2, 1]).await, (vec![2, 1], true, 1));
        assert_eq!(seen_again(|_| vec![]).await, (vec![], true, 1));
        let five = || vec![5, 4, 3, 2, 1];
        assert_eq!(seen_again(|_| five()).await, (five(), true, 3 + 2));
        // Something is pushed after the last page was read, or while they were.
        let pushed = seen_again(|asked| if asked > 3 { vec![6, 5, 4, 3, 2, 1] } else { five() }).await;
        assert_eq!(pushed, (five(), false, 3 + 1));
        let pushed = seen_again(|asked| if asked > 1 { vec![6, 5, 4, 3, 2, 1] } else { five() }).await;
        assert_eq!(pushed, (vec![5, 4, 4, 3, 2, 1], false, 3));
        // The first is deleted after its page was read: the third moves to it, and is seen on no page.
        let deleted = seen_again(|asked| if asked > 1 { vec![4, 3, 2, 1] } else { five() }).await;
        assert_eq!(deleted, (vec![5, 4, 2, 1], false, 2 + 2));
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
