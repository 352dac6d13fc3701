//! Lists by page numbers, which shift while somebody pushes or deletes.

use std::collections::HashSet;
use std::future::Future;
use std::hash::Hash;

use super::api::ApiAnswer;
use crate::registry::{Error, ErrorKind, Operation, Place, Result};

/// Entries of one list: as many as a list by links may have.
const MAX_ENTRIES: usize = 2_000_000;
/// The pages of one list, all together, in bytes: as many as a list by links may have.
const MAX_SIZE: usize = 64 * 1024 * 1024;
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
    /// What it was read from, in bytes.
    size: usize,
    /// For errors.
    at: (Operation, Place),
}

impl<T> NumberedPage<T> {
    /// The page that an answer has.
    pub fn of(answer: &ApiAnswer, entries: Vec<T>, total: Option<u64>, last: bool) -> Self {
        Self {
            entries,
            total,
            last,
            size: answer.body.len(),
            at: answer.at(),
        }
    }
}

/// Reads all pages, by numbers from 1. `None` where they never came to as many entries as they said, one was on two of them, or
/// the first was another when it was read again after them (without a total the last, too): the list changed while it was read,
/// twice, and whatever it shows may not be all. So it is where a page is that before it, and where there is no end of them.
///
/// # Errors
/// Those of `page`; `Invalid` where all pages are too large.
pub async fn numbered<T, F, P>(mut page: P) -> Result<Option<Vec<T>>>
where
    T: Eq + Hash,
    P: FnMut(u32) -> F,
    F: Future<Output = Result<NumberedPage<T>>>,
{
    for _ in 0..2 {
        let read = once(&mut page, false).await?;
        if is_the_same_again(&read, &mut page).await? {
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
    T: Eq + Hash,
    P: FnMut(u32) -> F,
    F: Future<Output = Result<NumberedPage<T>>>,
{
    let read = once(&mut page, false).await?;
    let is_whole = is_the_same_again(&read, &mut page).await?;
    Ok((read.entries, is_whole))
}

/// True where a reading is whole and, of several pages, none has an entry of that before it and what is at the ends is there still
/// when it is read again. The end of a list with a total was counted.
async fn is_the_same_again<T, F, P>(read: &Reading<T>, page: &mut P) -> Result<bool>
where
    T: Eq + Hash,
    P: FnMut(u32) -> F,
    F: Future<Output = Result<NumberedPage<T>>>,
{
    let pages: Vec<&[T]> = read.pages().collect();
    let [first, .., last] = pages.as_slice() else {
        return Ok(read.is_whole);
    };
    // However many entries a page has: nothing else moves on while they are compared.
    let is_on_two = |two: &[&[T]]| {
        let before: HashSet<&T> = two[0].iter().collect();
        two[1].iter().any(|entry| before.contains(entry))
    };
    if !read.is_whole || pages.windows(2).any(is_on_two) {
        return Ok(false);
    }
    let number = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    if !read.has_total && page(number).await?.entries != *last {
        return Ok(false);
    }
    Ok(page(1).await?.entries == *first)
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
    /// The pages say how many entries all have.
    has_total: bool,
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
        has_total: false,
    };
    let (mut total, mut size) = (None, 0_usize);
    for number in 1..=MAX_PAGES {
        let read = page(number).await?;
        size = size.saturating_add(read.size);
        if size > MAX_SIZE {
            let (operation, place) = read.at;
            let message = format!("the list has more than {} MiB", MAX_SIZE >> 20);
            return Err(Error::new(operation, place, ErrorKind::Invalid, message));
        }
        if number > 1 && read.total != total {
            reading.has_changed = true;
            if !to_the_end {
                return Ok(reading);
            }
        }
        total = read.total;
        reading.has_total = total.is_some();
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

    fn bare(entries: Vec<u32>, total: Option<u64>, last: bool) -> NumberedPage<u32> {
        NumberedPage {
            entries,
            total,
            last,
            size: 0,
            at: (Operation::ListRepositories, Place::default()),
        }
    }

    fn page(entries: &[u32], total: u64) -> NumberedPage<u32> {
        bare(entries.to_vec(), Some(total), false)
    }

    #[tokio::test]
    async fn a_list_by_numbers_ends_by_its_size() {
        let mut asked = 0;
        let read = numbered(|number| {
            asked += 1;
            let page = bare(vec![number], None, false);
            ready(Ok(NumberedPage { size: 8 << 20, ..page }))
        })
        .await;
        let error = read.expect_err("too much");
        assert_eq!((error.kind, asked), (ErrorKind::Invalid, 9));
        assert!(error.message.contains("64 MiB"), "{error}");
    }

    #[tokio::test]
    async fn pages_of_any_length_are_compared_at_once() {
        // Half a million each: to compare each with each takes a quarter of an hour.
        const MANY: u32 = 500_000;
        let read = numbered_and_seen_again(|number| {
            let first = (number - 1) * MANY;
            ready(Ok(bare((first..first + MANY).collect(), None, number == 3)))
        })
        .await;
        let (entries, is_whole) = read.expect("read");
        assert_eq!((entries.len(), is_whole), (3 * MANY as usize, true));
    }

    #[tokio::test]
    async fn a_list_that_shows_one_entry_on_two_pages_is_not_whole() {
        // By the time of their last push: the fourth is pushed after the first page was read, and the third comes twice.
        let mut asked = 0;
        let moved = numbered(|number| {
            asked += 1;
            ready(Ok(match (asked, number) {
                (1, _) => page(&[5, 3], 4),
                (2, _) => page(&[3, 2], 4),
                (_, 1) => page(&[4, 5], 4),
                _ => page(&[3, 2], 4),
            }))
        })
        .await;
        assert_eq!((moved.expect("read"), asked), (Some(vec![4, 5, 3, 2]), 2 + 3));
    }

    #[tokio::test]
    async fn a_list_that_begins_otherwise_in_the_end_is_not_whole() {
        // The first is deleted after the first page was read, and a fifth is made: as many as before, and the third is on no page.
        let mut asked = 0;
        let shifted = numbered(|number| {
            asked += 1;
            ready(Ok(match (asked, number) {
                (1, _) => page(&[1, 2], 4),
                (_, 1) => page(&[2, 3], 4),
                _ => page(&[4, 5], 4),
            }))
        })
        .await;
        assert_eq!((shifted.expect("read"), asked), (Some(vec![2, 3, 4, 5]), 3 + 3));
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
            let shown = entries.iter().skip(before).take(2).copied().collect();
            ready(Ok(bare(shown, None, before + 2 >= entries.len())))
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
            ready(Ok(bare(vec![1, 2], None, false)))
        })
        .await;
        assert_eq!((same.expect("read"), asked), (None, 4));
        // One that goes round.
        let mut asked = 0;
        let round = numbered(|number| {
            asked += 1;
            ready(Ok(bare(vec![number % 2], None, false)))
        })
        .await;
        assert_eq!((round.expect("read"), asked), (None, 2 * MAX_PAGES));
    }
}
