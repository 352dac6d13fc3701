//! Verbs that write at the same time: one commit for many, each for itself where one fails or is dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, join_all};

use super::*;

/// How many transactions the log holds: the last page of each tells the size of the file after it
/// (<https://www.sqlite.org/fileformat.html>, 4.1 WAL file format).
fn commits(path: &Path) -> usize {
    let log = std::fs::read(beside(path, "-wal")).unwrap();
    let salt = &log[16..24];
    log[32..]
        .chunks(24 + 4096)
        .filter(|frame| frame[8..16] == *salt && frame[4..8] != [0; 4])
        .count()
}

/// Gives a future up after that many polls.
struct Impatient<'a, T>(BoxFuture<'a, T>, usize);

impl<T> Future for Impatient<'_, T> {
    type Output = Option<T>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.1 -= 1;
        self.0.as_mut().poll(context).map(Some)
    }
}

fn jobs_of<'a>(run: RunId, repository: &'a RepositoryName, references: &'a [String]) -> Vec<(NewJob<'a>, FinishedJob)> {
    references
        .iter()
        .map(|reference| {
            let job = NewJob {
                reference,
                ..job(run, repository, None)
            };
            (job, finished(JobOutcome::InStep))
        })
        .collect()
}

fn references(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// Runs `verbs` so that all of them wait before the first one gets its turn.
async fn meeting<T>(store: &Store, verbs: impl IntoIterator<Item: Future<Output = T>>) -> Vec<T> {
    let turn = store.0.writer().await.unwrap();
    let (ends, ()) = tokio::join!(biased; join_all(verbs), async { drop(turn) });
    ends
}

#[tokio::test]
async fn a_hundred_verbs_at_once_share_one_commit() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "a", at(0)).await;
    let repository = name("a");
    let before = commits(store.path());
    let started = meeting(
        &store,
        (0..100).map(|_| store.start_job(job(run, &repository, None), at(1))),
    )
    .await;
    let ids: BTreeSet<JobId> = started.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 100);
    assert_eq!(commits(store.path()), before + 1);
    // What was told is there for everybody.
    let second = Store::open_read_only(store.path()).await.unwrap().unwrap();
    assert_eq!(second.jobs(&JobFilter::default()).await.unwrap().len(), 100);

    // One after the other: each is on disk before the next begins.
    for id in ids.iter().take(5) {
        store
            .finish_job(*id, &finished(JobOutcome::Copied), None, at(2))
            .await
            .unwrap();
    }
    assert_eq!(commits(store.path()), before + 6);
}

#[tokio::test]
async fn what_is_about_to_be_put_and_its_blobs_cost_one_commit_and_no_line_of_the_audit_trail() {
    let (_folder, store) = fresh().await;
    let (repository, v1) = (name("a"), tag("v1"));
    let intention = Intention {
        run: RunId(1),
        source: "hub/a",
        previous: None,
        rule: "nightly",
        registry: "ecr",
        repository: &repository,
        tag: &v1,
        digest: &digest(9),
    };
    let blobs = [digest(1), digest(2)];
    store.record_intention(&intention, &[], at(0)).await.unwrap();
    let before = commits(store.path());
    store.record_intention(&intention, &blobs, at(1)).await.unwrap();
    assert_eq!(commits(store.path()), before + 1);
    let seen = store.blobs_seen("ecr", &repository, &blobs, at(1), at(1)).await;
    assert_eq!(seen.unwrap(), BTreeSet::from(blobs));
    let written = store.written("ecr", &repository).await.unwrap();
    assert_eq!(written[&v1], BTreeSet::from([digest(9)]));
    assert_eq!(store.audit(1).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn verbs_of_many_tasks_share_commits() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "a", at(0)).await;
    let before = commits(store.path());
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let store = store.clone();
            #[expect(clippy::disallowed_methods, reason = "tasks of this test, awaited below")]
            tokio::spawn(async move {
                let repository = name("a");
                for _ in 0..5 {
                    let id = store.start_job(job(run, &repository, None), at(1)).await.unwrap();
                    store
                        .finish_job(id, &finished(JobOutcome::Copied), None, at(2))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let made = commits(store.path()) - before;
    assert!(made < 160, "{made} commits for 320 verbs");
    let jobs = store.jobs(&JobFilter::default()).await.unwrap();
    assert_eq!(jobs.len(), 160);
    assert!(jobs.iter().all(|job| job.outcome == Some(JobOutcome::Copied)));
}

#[tokio::test]
async fn a_verb_that_fails_takes_no_other_along() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "a", at(0)).await;
    let repository = name("a");
    // Long enough for two statements, of which the second fails.
    let texts = references("broken", 1_001);
    let mut broken = jobs_of(run, &repository, &texts);
    broken.last_mut().unwrap().0.run = RunId(99);
    let before = commits(store.path());
    // Its place among the others matters: the first begins the transaction, the last ends it.
    for place in 0..4 {
        let verbs = (0..4).map(|index| {
            let verb: BoxFuture<'_, Result<bool>> = if index == place {
                Box::pin(async { store.record_settled_jobs(&broken, at(1)).await.map(|()| true) })
            } else {
                Box::pin(async { store.start_job(job(run, &repository, None), at(1)).await.map(|_| false) })
            };
            verb
        });
        let ends = meeting(&store, verbs).await;
        for (index, end) in ends.into_iter().enumerate() {
            assert_eq!(end.is_err(), index == place, "{place} {index}: {end:?}");
        }
        let jobs = store.jobs(&JobFilter::default()).await.unwrap();
        assert_eq!(jobs.len(), 3 * (place + 1));
    }
    assert_eq!(commits(store.path()), before + 4);
}

/// Verbs of two statements, given up after some polls: from none at all to so many that they end. With `company` every other
/// verb is left to end: now the first and the third, now the second and the last, which commits for all.
async fn at_every_point(store: &Store, company: bool) {
    let run = start_run(store, "a", at(0)).await;
    let repository = name("a");
    let wrote = digest(1);
    let second = Store::open(store.path()).await.unwrap();
    let (mut told, mut given_up) = (BTreeSet::new(), 0);
    for polls in 0..60 {
        let tags: Vec<Tag> = (0..4).map(|index| tag(&format!("v{polls}-{index}"))).collect();
        let writes: Vec<Write<'_>> = tags
            .iter()
            .map(|tag| Write {
                run: Some(run),
                job: None,
                rule: "a",
                source: "harbor/a",
                registry: "ecr",
                repository: &repository,
                tag,
                digest: &wrote,
                previous: None,
            })
            .collect();
        let verbs = writes.iter().enumerate().map(|(index, write)| {
            let patience = if company && index % 2 == polls % 2 {
                usize::MAX
            } else {
                polls + index
            };
            Impatient(Box::pin(store.record_write(write, at(1))), patience)
        });
        for (index, end) in meeting(store, verbs).await.into_iter().enumerate() {
            match end {
                Some(end) => {
                    end.unwrap();
                    told.insert(tags[index].clone());
                }
                None => given_up += 1,
            }
        }
        // Nobody left a transaction open, which would keep others out for as long as no verb comes along here.
        assert!(second.request_cancel(run).await.unwrap());
        // What was told is there, what was given up is there wholly or not at all.
        let audited = second.audit(1_000).await.unwrap();
        let audited: BTreeSet<Tag> = audited.into_iter().map(|entry| entry.tag).collect();
        let written: BTreeSet<Tag> = second.written("ecr", &repository).await.unwrap().into_keys().collect();
        assert_eq!(audited, written, "{polls}");
        assert!(told.is_subset(&written), "{polls}");
    }
    assert!(
        !told.is_empty() && given_up > 0,
        "{told:?} were told, {given_up} given up"
    );
    second.close().await;
}

#[tokio::test]
async fn a_verb_that_is_dropped_at_any_point_spoils_no_other() {
    let (_folder, store) = fresh().await;
    at_every_point(&store, true).await;
}

#[tokio::test]
async fn verbs_that_are_all_dropped_leave_no_transaction_open() {
    let (_folder, store) = fresh().await;
    at_every_point(&store, false).await;
}

#[tokio::test]
async fn a_commit_that_fails_is_told_to_all_who_wait_for_it() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "a", at(0)).await;
    let repository = name("a");
    let deferred = async {
        store
            .verb("defer what is wrong until the commit", async {
                let mut change = store.0.begin().await?;
                sqlx::query("PRAGMA defer_foreign_keys = ON").execute(&mut *change).await?;
                sqlx::query("INSERT INTO jobs SELECT 7, 99, '', '', '', '', '', '', NULL, NULL, NULL, NULL, NULL, 0, 0, 0, NULL, NULL, '', NULL, 0")
                    .execute(&mut *change)
                    .await?;
                change.commit().await
            })
            .await
    };
    let good = || async { store.start_job(job(run, &repository, None), at(1)).await.map(|_| ()) };
    let verbs: [BoxFuture<'_, Result<()>>; 3] = [Box::pin(good()), Box::pin(deferred), Box::pin(good())];
    for end in meeting(&store, verbs).await {
        let error = end.unwrap_err();
        assert!(
            error.to_string().contains("refuses a row that breaks its rules"),
            "{error}"
        );
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with("error returned from database"), "{cause}");
    }
    assert_eq!(store.jobs(&JobFilter::default()).await.unwrap(), []);
    good().await.unwrap();
    assert_eq!(store.jobs(&JobFilter::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_is_told_to_all_who_are_in_it() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "a", at(0)).await;
    let repository = name("a");
    let ending = store.verb("fail", async {
        let mut change = store.0.begin().await?;
        // As SQLite does by itself where its disk fails.
        sqlx::query("ROLLBACK").execute(&mut *change).await?;
        Err(sqlx::Error::RowNotFound)
    });
    let good = || async { store.start_job(job(run, &repository, None), at(1)).await.map(Some) };
    let verbs: [BoxFuture<'_, Result<Option<JobId>>>; 3] = [Box::pin(good()), Box::pin(ending), Box::pin(good())];
    let ends = meeting(&store, verbs).await;
    let error = ends[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("for something else at the same time"), "{error}");
    assert!(ends[1].is_err());
    let jobs = store.jobs(&JobFilter::default()).await.unwrap();
    let kept: Vec<_> = jobs.iter().map(|job| Some(job.id)).collect();
    assert_eq!(kept, [*ends[2].as_ref().unwrap()]);
}

#[tokio::test]
async fn closing_waits_for_those_who_wait_for_a_commit() {
    let (_folder, path) = place();
    let store = Store::open(&path).await.unwrap();
    let run = start_run(&store, "a", at(0)).await;
    let repository = name("a");
    let verbs = join_all((0..10).map(|_| store.start_job(job(run, &repository, None), at(1))));
    let (ends, ()) = tokio::join!(verbs, store.clone().close());
    let done = ends.into_iter().filter(Result::is_ok).count();
    assert_eq!(done, 10);
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.jobs(&JobFilter::default()).await.unwrap().len(), done);
}

/// Set for the process that [`what_was_told_survives_the_end_of_the_process`] starts: where the database is.
const BUSY: &str = "TRANSSHIP_TEST_BUSY_STATE";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "the process that another test starts and kills"]
async fn busy_process() {
    let Some(path) = std::env::var_os(BUSY).map(PathBuf::from) else {
        return;
    };
    let store = Store::open(&path).await.unwrap();
    let run = start_run(&store, "nightly", at(0)).await;
    let writing = (0..16).map(|_| {
        let store = store.clone();
        #[expect(clippy::disallowed_methods, reason = "tasks of a process that is killed")]
        tokio::spawn(async move {
            let repository = name("a");
            loop {
                let id = store.start_job(job(run, &repository, None), at(1)).await.unwrap();
                println!("{BUSY} {}", id.0);
            }
        })
    });
    join_all(writing.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn what_was_told_survives_the_end_of_the_process() {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    let (_folder, path) = place();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::together::busy_process",
            "--ignored",
            "--nocapture",
        ])
        .env(BUSY, &path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = BTreeSet::new();
    for line in output {
        if let Some((_, id)) = line.unwrap().split_once(&format!("{BUSY} ")) {
            told.insert(JobId(id.parse().unwrap()));
        }
        if told.len() == 500 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(told.len() >= 500);
    let store = Store::open(&path).await.unwrap();
    let kept: BTreeSet<JobId> = store
        .jobs(&JobFilter::default())
        .await
        .unwrap()
        .into_iter()
        .map(|job| job.id)
        .collect();
    assert_eq!(told.difference(&kept).collect::<Vec<_>>(), Vec::<&JobId>::new());
}
