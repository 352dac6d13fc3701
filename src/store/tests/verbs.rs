//! Every verb on a fresh file, so that every statement runs.

use std::collections::{BTreeMap, BTreeSet};

use super::super::jobs::KINDS;
use super::*;
use crate::oci::{Algorithm, Hasher};
use crate::plan::{Checkpoint, ErrorKind};

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
    let open = store.start_job(job(run, &repository, None), at(2)).await.unwrap();
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
    store.finish_job(failing, &end, at(9)).await.unwrap();

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

    let error = store.finish_job(JobId(99), &end, at(9)).await.unwrap_err();
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
        store.finish_job(id, &end, at(2)).await.unwrap();
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

fn key(number: usize) -> UploadKey {
    UploadKey {
        registry: "ecr".into(),
        repository: name("platform/web"),
        digest: digest(number),
    }
}

fn checkpoint(offset: u64) -> Checkpoint {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&offset.to_be_bytes());
    Checkpoint {
        offset,
        state: hasher.save().unwrap(),
    }
}

async fn offsets(store: &Store, key: &UploadKey) -> Vec<u64> {
    let upload = store.upload(key).await.unwrap().unwrap();
    upload.checkpoints.iter().map(|checkpoint| checkpoint.offset).collect()
}

#[tokio::test]
async fn uploads_are_remembered_and_forgotten() {
    let (_folder, store) = fresh().await;
    assert_eq!(store.upload(&key(1)).await.unwrap(), None);
    let first = store
        .save_upload(&key(1), 1 << 40, "session one", 0, at(1))
        .await
        .unwrap();
    let second = store.save_upload(&key(2), 7, "session two", 3, at(2)).await.unwrap();
    store
        .record_offset(first, "session one, next", 4096, None, at(3))
        .await
        .unwrap();
    store
        .record_offset(first, "session one, last", 8192, Some(&checkpoint(8192)), at(4))
        .await
        .unwrap();
    let expected = StoredUpload {
        id: first,
        key: key(1),
        size: 1 << 40,
        write: "session one, last".into(),
        offset: 8192,
        checkpoints: vec![checkpoint(8192)],
        opened_at: at(1),
    };
    assert_eq!(store.upload(&key(1)).await.unwrap(), Some(expected));
    let all: Vec<_> = store
        .uploads()
        .await
        .unwrap()
        .into_iter()
        .map(|upload| upload.id)
        .collect();
    assert_eq!(all, [first, second]);

    let replaced = store
        .save_upload(&key(1), 1 << 40, "session three", 0, at(5))
        .await
        .unwrap();
    assert_ne!(replaced, first);
    // What still comes for the old one changes nothing.
    store
        .record_offset(first, "stale", 9999, Some(&checkpoint(9999)), at(6))
        .await
        .unwrap();
    store.record_checkpoint(first, &checkpoint(9999), at(6)).await.unwrap();
    let upload = store.upload(&key(1)).await.unwrap().unwrap();
    assert_eq!(
        (upload.id, upload.write.as_str(), upload.offset),
        (replaced, "session three", 0)
    );
    assert_eq!(upload.checkpoints, []);

    store.forget_upload(replaced).await.unwrap();
    store.forget_upload(replaced).await.unwrap();
    assert_eq!(store.upload(&key(1)).await.unwrap(), None);
    assert_eq!(store.uploads().await.unwrap().len(), 1);
    let too_large = store.save_upload(&key(3), u64::MAX, "", 0, at(1)).await.unwrap_err();
    assert!(too_large.to_string().contains("a number is too large"), "{too_large}");
}

#[tokio::test]
async fn the_eight_checkpoints_made_last_are_kept() {
    let (_folder, store) = fresh().await;
    let upload = store.save_upload(&key(1), 1000, "session", 0, at(0)).await.unwrap();
    let other = store.save_upload(&key(2), 1000, "session", 0, at(0)).await.unwrap();
    store.record_checkpoint(other, &checkpoint(1), at(1)).await.unwrap();
    for offset in 1..=10 {
        store
            .record_checkpoint(upload, &checkpoint(offset * 10), at(1))
            .await
            .unwrap();
    }
    assert_eq!(offsets(&store, &key(1)).await, [30, 40, 50, 60, 70, 80, 90, 100]);
    // The transfer went back: the states made now count, though others lie further along.
    store.record_checkpoint(upload, &checkpoint(15), at(2)).await.unwrap();
    store.record_checkpoint(upload, &checkpoint(40), at(2)).await.unwrap();
    store.record_checkpoint(upload, &checkpoint(45), at(2)).await.unwrap();
    assert_eq!(offsets(&store, &key(1)).await, [15, 40, 45, 60, 70, 80, 90, 100]);
    assert_eq!(offsets(&store, &key(2)).await, [1]);
}

#[tokio::test]
async fn blobs_are_known_by_registry_and_repository() {
    let (_folder, store) = fresh().await;
    let many: Vec<_> = (0..2_500).map(digest).collect();
    store.remember_blobs("ecr", &name("a"), &many, at(0)).await.unwrap();
    store.remember_blobs("ecr", &name("a"), &[], at(0)).await.unwrap();
    store
        .remember_blobs("acr", &name("z"), &many[..1], at(0))
        .await
        .unwrap();
    let known = store.known_blobs("ecr", &many).await.unwrap();
    assert_eq!(known.len(), 2_500);
    assert!(known.values().all(|repositories| *repositories == [name("a")]));

    for (place, repository) in ["b", "c", "d", "e"].into_iter().enumerate() {
        let now = at(10 + i64::try_from(place).unwrap());
        store
            .remember_blobs("ecr", &name(repository), &many[..1], now)
            .await
            .unwrap();
    }
    let one = [digest(0), digest(9_999)];
    let expected = BTreeMap::from([(digest(0), vec![name("e"), name("d"), name("c"), name("b")])]);
    assert_eq!(store.known_blobs("ecr", &one).await.unwrap(), expected);
    // Seen again, the oldest is the newest.
    store
        .remember_blobs("ecr", &name("a"), &many[..1], at(99))
        .await
        .unwrap();
    assert_eq!(store.known_blobs("ecr", &one).await.unwrap()[&digest(0)][0], name("a"));

    store.forget_blobs("ecr", &name("a"), &many).await.unwrap();
    store.forget_blobs("ecr", &name("a"), &[]).await.unwrap();
    let known = store.known_blobs("ecr", &many).await.unwrap();
    assert_eq!(known.keys().collect::<Vec<_>>(), [&digest(0)]);
    assert_eq!(store.known_blobs("acr", &many).await.unwrap().len(), 1);
    assert_eq!(store.known_blobs("acr", &[]).await.unwrap().len(), 0);
}

#[tokio::test]
async fn refused_mounts_are_remembered_until_they_are_not() {
    let (_folder, store) = fresh().await;
    let (a, b) = (name("a"), name("b"));
    store.remember_mount_refusal("ecr", &a, &b, at(5)).await.unwrap();
    store.remember_mount_refusal("ecr", &a, &b, at(10)).await.unwrap();
    assert!(store.mount_refused("ecr", &a, &b, at(9)).await.unwrap());
    assert!(!store.mount_refused("ecr", &a, &b, at(10)).await.unwrap());
    assert!(!store.mount_refused("ecr", &b, &a, at(0)).await.unwrap());
    assert!(!store.mount_refused("acr", &a, &b, at(0)).await.unwrap());
}

#[tokio::test]
async fn capabilities_are_learnt_and_expire() {
    let (_folder, store) = fresh().await;
    store
        .learn("ecr", "*", "habit", "keeps_pieces", "404", at(0), at(100))
        .await
        .unwrap();
    store
        .learn("ecr", "*", "habit", "keeps_bytes", "204", at(1), at(100))
        .await
        .unwrap();
    store
        .learn("ecr", "big/*", "referrers", "no", "404", at(2), at(50))
        .await
        .unwrap();
    let habit = store.capability("ecr", "*", "habit", at(99)).await.unwrap();
    assert_eq!(habit.as_deref(), Some("keeps_bytes"));
    assert_eq!(store.capability("ecr", "*", "habit", at(100)).await.unwrap(), None);
    assert_eq!(store.capability("acr", "*", "habit", at(0)).await.unwrap(), None);
    let line = |class: &str, name: &str, value: &str, evidence: &str, learnt| {
        (class.into(), name.into(), value.into(), evidence.into(), learnt)
    };
    let expected = [
        line("*", "habit", "keeps_bytes", "204", at(1)),
        line("big/*", "referrers", "no", "404", at(2)),
    ];
    assert_eq!(store.capabilities("ecr").await.unwrap(), expected);
    store.forget_capability("ecr", "*", "habit").await.unwrap();
    assert_eq!(store.capability("ecr", "*", "habit", at(0)).await.unwrap(), None);
}

#[tokio::test]
async fn writes_are_in_the_history_and_the_audit_trail() {
    let (_folder, store) = fresh().await;
    let (repository, latest) = (name("platform/web"), tag("latest"));
    let (old, new) = (digest(1), digest(2));
    let first = Write {
        run: Some(RunId(3)),
        job: Some(JobId(4)),
        rule: "nightly",
        source: "harbor/platform/web",
        registry: "ecr",
        repository: &repository,
        tag: &latest,
        digest: &old,
        previous: None,
    };
    store.record_write(&first, at(1)).await.unwrap();
    let second = Write {
        run: None,
        job: None,
        rule: "",
        digest: &new,
        previous: Some(&old),
        ..first.clone()
    };
    store.record_write(&second, at(2)).await.unwrap();
    store.record_write(&first, at(3)).await.unwrap();

    let written = store.written("ecr", &repository).await.unwrap();
    assert_eq!(
        written,
        BTreeMap::from([(latest.clone(), BTreeSet::from([old.clone(), new.clone()]))])
    );
    assert_eq!(store.written("acr", &repository).await.unwrap().len(), 0);
    let audit = store.audit(2).await.unwrap();
    assert_eq!(audit.iter().map(|entry| entry.at).collect::<Vec<_>>(), [at(3), at(2)]);
    let expected = AuditEntry {
        at: at(2),
        run: None,
        job: None,
        rule: String::new(),
        action: "put_tag".into(),
        source: "harbor/platform/web".into(),
        registry: "ecr".into(),
        repository: repository.clone(),
        tag: latest.clone(),
        digest: new.clone(),
        previous_digest: Some(old.clone()),
    };
    assert_eq!(audit[1], expected);
    assert_eq!((audit[0].run, audit[0].job), (Some(RunId(3)), Some(JobId(4))));

    store
        .record_verified("ecr", &repository, &latest, &old, at(4))
        .await
        .unwrap();
    store
        .record_verified("ecr", &repository, &latest, &new, at(5))
        .await
        .unwrap();
    let verified = store.verified("ecr", &repository).await.unwrap();
    assert_eq!(verified, BTreeMap::from([(latest, (new, at(5)))]));
}

#[tokio::test]
async fn choices_and_checks_are_remembered() {
    let (_folder, store) = fresh().await;
    let repository = name("a");
    assert_eq!(store.choice(&digest(1), "rewrite/1 linux/amd64").await.unwrap(), None);
    store
        .remember_choice(&digest(1), "rewrite/1 linux/amd64", "[1]", at(0))
        .await
        .unwrap();
    store
        .remember_choice(&digest(1), "rewrite/1 linux/amd64", "[2]", at(1))
        .await
        .unwrap();
    let choice = store.choice(&digest(1), "rewrite/1 linux/amd64").await.unwrap();
    assert_eq!(choice.as_deref(), Some("[2]"));
    assert_eq!(store.choice(&digest(1), "rewrite/2 linux/amd64").await.unwrap(), None);

    store
        .record_attachments_checked("ecr", &repository, &digest(1), at(0))
        .await
        .unwrap();
    store
        .record_attachments_checked("ecr", &repository, &digest(1), at(2))
        .await
        .unwrap();
    store
        .record_attachments_checked("ecr", &name("b"), &digest(2), at(2))
        .await
        .unwrap();
    let checked = store.attachments_checked("ecr", &repository).await.unwrap();
    assert_eq!(checked, BTreeMap::from([(digest(1), at(2))]));
}

#[tokio::test]
async fn a_tag_that_two_sources_want_is_told_to_both() {
    let (_folder, store) = fresh().await;
    let repository = name("mirror/web");
    let claim = |tags: &'static [&'static str], rule: &'static str, source: &'static str, now, stale| {
        let (store, repository) = (store.clone(), repository.clone());
        async move {
            let tags: Vec<_> = tags.iter().map(|text| tag(text)).collect();
            let others = store.claim_tags("ecr", &repository, &tags, rule, source, now, stale);
            others.await.unwrap()
        }
    };
    let none = BTreeMap::new();
    assert_eq!(claim(&["v1", "v2"], "one", "harbor/web", at(10), at(0)).await, none);
    assert_eq!(claim(&["v1"], "one", "harbor/web", at(20), at(0)).await, none);
    // Another rule for the same source is the same claim.
    assert_eq!(claim(&["v1"], "two", "harbor/web", at(30), at(0)).await, none);
    let told = claim(&["v1", "v2", "v3"], "three", "hub/web", at(40), at(0)).await;
    let line = |rule: &str| format!("rule {rule} from harbor/web");
    assert_eq!(
        told,
        BTreeMap::from([(tag("v1"), line("two")), (tag("v2"), line("one"))])
    );
    let told = claim(&["v1", "v4"], "two", "harbor/web", at(50), at(0)).await;
    assert_eq!(
        told,
        BTreeMap::from([(tag("v1"), "rule three from hub/web".to_owned())])
    );
    // v2 was last renewed at 10, v1 at 50.
    let told = claim(&["v1", "v2"], "three", "hub/web", at(60), at(30)).await;
    assert_eq!(told, BTreeMap::from([(tag("v1"), line("two"))]));
    store.keep_claims(&["one", "three"]).await.unwrap();
    assert_eq!(claim(&["v1", "v4"], "three", "hub/web", at(70), at(0)).await, none);
    assert_eq!(claim(&[], "three", "hub/web", at(70), at(0)).await, none);
}

#[tokio::test]
async fn cleaning_keeps_the_last_run_of_each_rule_open_runs_and_what_was_written() {
    let (_folder, store) = fresh().await;
    let repository = name("a");
    let mut old = Vec::new();
    // More than one batch of deletes.
    for number in 0..120 {
        let run = start_run(&store, "nightly", at(number)).await;
        store.start_job(job(run, &repository, None), at(number)).await.unwrap();
        store.finish_run(run, RunOutcome::Ok, "{}", at(number)).await.unwrap();
        old.push(run);
    }
    let open = start_run(&store, "hourly", at(0)).await;
    let rare = start_run(&store, "rare", at(1)).await;
    store.finish_run(rare, RunOutcome::Ok, "{}", at(2)).await.unwrap();
    let continued = NewRun {
        rule: "nightly",
        trigger: Trigger::Recovery,
        continues: old.last().copied(),
    };
    let continued = store.start_run(continued, at(2_000)).await.unwrap();
    store
        .finish_run(continued, RunOutcome::Ok, "{}", at(2_001))
        .await
        .unwrap();
    let newer = start_run(&store, "hourly", at(2_002)).await;
    store.finish_run(newer, RunOutcome::Ok, "{}", at(2_003)).await.unwrap();
    let (latest, wrote) = (tag("latest"), digest(1));
    let write = Write {
        run: Some(old[0]),
        job: None,
        rule: "nightly",
        source: "harbor/a",
        registry: "ecr",
        repository: &repository,
        tag: &latest,
        digest: &wrote,
        previous: None,
    };
    store.record_write(&write, at(0)).await.unwrap();
    store
        .remember_blobs("ecr", &repository, &[digest(1)], at(0))
        .await
        .unwrap();
    store
        .remember_blobs("ecr", &repository, &[digest(2)], at(5_000))
        .await
        .unwrap();
    store.save_upload(&key(1), 1, "", 0, at(0)).await.unwrap();
    let live = store.save_upload(&key(2), 1, "", 0, at(0)).await.unwrap();
    store.record_checkpoint(live, &checkpoint(1), at(5_000)).await.unwrap();

    assert_eq!(store.clean_runs(at(1_000)).await.unwrap(), 120);
    let mut left: Vec<_> = store.runs(500).await.unwrap().into_iter().map(|run| run.id).collect();
    left.sort();
    assert_eq!(left, [open, rare, continued, newer]);
    assert_eq!(store.run(continued).await.unwrap().unwrap().continues, None);
    assert_eq!(store.jobs(&JobFilter::default()).await.unwrap(), []);
    assert_eq!(store.audit(10).await.unwrap()[0].run, Some(old[0]));
    assert_eq!(store.written("ecr", &repository).await.unwrap().len(), 1);
    let known = store.known_blobs("ecr", &[digest(1), digest(2)]).await.unwrap();
    assert_eq!(known.keys().collect::<Vec<_>>(), [&digest(2)]);
    let uploads: Vec<_> = store
        .uploads()
        .await
        .unwrap()
        .into_iter()
        .map(|upload| upload.id)
        .collect();
    assert_eq!(uploads, [live]);
    // Numbers are not given again.
    assert!(start_run(&store, "nightly", at(6_000)).await > newer);
    assert_eq!(store.clean_runs(at(1_000)).await.unwrap(), 0);
}
