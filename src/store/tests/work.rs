//! Every verb of runs and jobs on a fresh file, so that every statement runs.

use super::super::jobs::KINDS;
use super::*;
use crate::plan::ErrorKind;

#[tokio::test]
async fn runs_start_end_and_are_found() {
    let (_folder, store) = fresh().await;
    assert_eq!(store.runs(10).await.unwrap(), []);
    assert_eq!(store.last_started("nightly").await.unwrap(), None);

    let first = start_run(&store, "nightly", at(0)).await;
    let other = start_run(&store, "hourly", at(5)).await;
    store
        .finish_run(first, RunOutcome::Partial, "{\"a\":1}", at(10))
        .await
        .unwrap();
    let again = NewRun {
        rule: "nightly",
        trigger: Trigger::Recovery,
        continues: Some(first),
    };
    let second = store.start_run(again, at(20)).await.unwrap();

    let expected = RunRow {
        id: first,
        rule: "nightly".into(),
        trigger: Trigger::Manual,
        continues: None,
        outcome: Some(RunOutcome::Partial),
        started_at: at(0),
        finished_at: Some(at(10)),
        report: Some("{\"a\":1}".into()),
    };
    assert_eq!(store.run(first).await.unwrap(), Some(expected));
    assert_eq!(store.run(RunId(99)).await.unwrap(), None);
    let newest: Vec<_> = store.runs(2).await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(newest, [second, other]);
    let last: Vec<_> = store.last_runs().await.unwrap();
    assert_eq!(last.iter().map(|run| run.id).collect::<Vec<_>>(), [other, second]);
    assert_eq!(last[1].continues, Some(first));
    assert_eq!(last[1].outcome, None);
    assert_eq!(store.last_started("nightly").await.unwrap(), Some(at(20)));

    let error = store
        .finish_run(RunId(99), RunOutcome::Ok, "{}", at(30))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("end a run: it holds no such row"), "{error}");
}

#[tokio::test]
async fn a_stop_can_be_asked_of_open_runs_only() {
    let (_folder, store) = fresh().await;
    let open = start_run(&store, "a", at(0)).await;
    let ended = start_run(&store, "b", at(0)).await;
    store.finish_run(ended, RunOutcome::Ok, "{}", at(1)).await.unwrap();
    assert!(store.request_cancel(open).await.unwrap());
    assert!(!store.request_cancel(ended).await.unwrap());
    assert!(!store.request_cancel(RunId(99)).await.unwrap());
    assert_eq!(store.cancel_requested(&[ended, open, RunId(99)]).await.unwrap(), [open]);
    assert_eq!(store.cancel_requested(&[ended]).await.unwrap(), []);
    assert_eq!(store.cancel_requested(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn jobs_start_end_and_are_listed() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "nightly", at(0)).await;
    let other_run = start_run(&store, "other", at(0)).await;
    let repository = name("platform/web");
    let wanted = digest(1);
    let failing = store
        .start_job(job(run, &repository, Some(&wanted)), at(1))
        .await
        .unwrap();
    let open = store
        .start_job(job(run, &name("platform/api"), None), at(2))
        .await
        .unwrap();
    let elsewhere = store.start_job(job(other_run, &repository, None), at(2)).await.unwrap();
    let end = FinishedJob {
        outcome: JobOutcome::Failed,
        kind: Some(ErrorKind::Throttled),
        status: Some(429),
        code: Some("TOOMANYREQUESTS".into()),
        message: Some("the registry asks for patience".into()),
        attempts: 6,
        bytes_written: 5 << 40,
        next_attempt_at: Some(at(3600)),
    };
    store.finish_job(failing, &end, None, at(9)).await.unwrap();

    let expected = JobRow {
        id: failing,
        run,
        rule: "nightly".into(),
        source_registry: "harbor".into(),
        source_repository: repository.clone(),
        reference: "v1".into(),
        destination_registry: "ecr".into(),
        destination_repository: repository.clone(),
        digest: Some(wanted),
        outcome: Some(JobOutcome::Failed),
        kind: Some(ErrorKind::Throttled),
        status: Some(429),
        code: Some("TOOMANYREQUESTS".into()),
        message: Some("the registry asks for patience".into()),
        attempts: 6,
        bytes_written: 5 << 40,
        started_at: at(1),
        finished_at: Some(at(9)),
        next_attempt_at: Some(at(3600)),
    };
    assert_eq!(store.job(failing).await.unwrap(), Some(expected));
    assert_eq!(store.job(JobId(99)).await.unwrap(), None);
    assert_eq!(store.job(open).await.unwrap().unwrap().outcome, None);

    let ids = |run, failed, limit| {
        let store = store.clone();
        async move {
            let jobs = store.jobs(&JobFilter { run, failed, limit }).await.unwrap();
            jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(None, false, 0).await, [elsewhere, open, failing]);
    assert_eq!(ids(None, false, 2).await, [elsewhere, open]);
    assert_eq!(ids(None, true, 0).await, [failing]);
    assert_eq!(ids(Some(run), false, 0).await, [open, failing]);
    assert_eq!(ids(Some(run), true, 5).await, [failing]);
    assert_eq!(ids(Some(other_run), true, 0).await, []);

    // Looked at again by the same rule, whatever came of it: no longer to be told.
    let again = start_run(&store, "nightly", at(10)).await;
    let mended = store.start_job(job(again, &repository, None), at(11)).await.unwrap();
    assert_eq!(ids(None, true, 0).await, []);
    assert_eq!(ids(Some(run), true, 0).await, [failing], "the run still says it");
    store.finish_job(mended, &end, None, at(12)).await.unwrap();
    store.finish_job(elsewhere, &end, None, at(12)).await.unwrap();
    assert_eq!(ids(None, true, 0).await, [mended, elsewhere], "each rule for itself");

    let error = store.finish_job(JobId(99), &end, None, at(9)).await.unwrap_err();
    assert!(error.to_string().contains("end a job: it holds no such row"), "{error}");
    let orphan = store
        .start_job(job(RunId(99), &repository, None), at(1))
        .await
        .unwrap_err();
    assert!(orphan.to_string().contains("start a job"), "{orphan}");
}

#[tokio::test]
async fn three_thousand_settled_jobs_are_kept_whole() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "nightly", at(0)).await;
    let repository = name("a");
    let references: Vec<String> = (0..3_000).map(|number| format!("v{number}")).collect();
    let wanted = digest(7);
    let jobs: Vec<_> = references
        .iter()
        .map(|reference| {
            let job = NewJob {
                reference,
                ..job(run, &repository, Some(&wanted))
            };
            let end = FinishedJob {
                kind: Some(ErrorKind::Conflict),
                status: Some(409),
                code: Some("00123".into()),
                message: Some("it's \"kept\" – \u{1F6A2}\n".into()),
                bytes_written: 1 << 60,
                next_attempt_at: Some(at(50)),
                ..finished(JobOutcome::Kept)
            };
            (job, end)
        })
        .collect();
    store.record_settled_jobs(&jobs, at(5)).await.unwrap();
    store.record_settled_jobs(&[], at(5)).await.unwrap();
    let found = store.jobs(&JobFilter::default()).await.unwrap();
    assert_eq!(found.len(), 3_000);
    assert_eq!(found[0].reference, "v2999");
    let oldest = found.last().unwrap();
    assert_eq!(oldest.reference, "v0");
    assert_eq!(oldest.outcome, Some(JobOutcome::Kept));
    assert_eq!(oldest.kind, Some(ErrorKind::Conflict));
    assert_eq!(oldest.status, Some(409));
    assert_eq!(oldest.code.as_deref(), Some("00123"));
    assert_eq!(oldest.message.as_deref(), Some("it's \"kept\" – \u{1F6A2}\n"));
    assert_eq!(oldest.bytes_written, 1 << 60);
    assert_eq!((oldest.started_at, oldest.finished_at), (at(5), Some(at(5))));
    assert_eq!(oldest.next_attempt_at, Some(at(50)));
    assert_eq!(oldest.digest.as_ref(), Some(&wanted));

    // All or nothing: the last one names a run that is not there.
    let mut broken = jobs[..3].to_vec();
    broken[2].0.run = RunId(99);
    store.record_settled_jobs(&broken, at(5)).await.unwrap_err();
    assert_eq!(store.jobs(&JobFilter::default()).await.unwrap().len(), 3_000);
}

#[tokio::test]
async fn every_kind_and_every_outcome_comes_back() {
    let (_folder, store) = fresh().await;
    let run = start_run(&store, "nightly", at(0)).await;
    let repository = name("a");
    for kind in KINDS {
        let id = store.start_job(job(run, &repository, None), at(1)).await.unwrap();
        let end = FinishedJob {
            kind: Some(kind),
            ..finished(JobOutcome::Failed)
        };
        store.finish_job(id, &end, None, at(2)).await.unwrap();
        assert_eq!(store.job(id).await.unwrap().unwrap().kind, Some(kind));
    }
    // A kind added to the type must be added to the list: this does not compile without a line for it.
    for (place, kind) in KINDS.into_iter().enumerate() {
        let expected = match kind {
            ErrorKind::Network => 0,
            ErrorKind::Throttled => 1,
            ErrorKind::Server => 2,
            ErrorKind::Corrupt => 3,
            ErrorKind::Unauthorized => 4,
            ErrorKind::Denied => 5,
            ErrorKind::NotFound => 6,
            ErrorKind::Conflict => 7,
            ErrorKind::Invalid => 8,
            ErrorKind::MissingContent => 9,
            ErrorKind::Unsupported => 10,
            ErrorKind::Quota => 11,
            ErrorKind::TooLarge => 12,
            ErrorKind::Tls => 13,
            ErrorKind::Config => 14,
            ErrorKind::Local => 15,
            ErrorKind::Cancelled => 16,
        };
        assert_eq!(place, expected);
    }
}
