//! Every verb of what is remembered beside runs and jobs, on a fresh file, so that every statement runs.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::oci::{Algorithm, Hasher};
use crate::plan::Checkpoint;

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
        used_at: at(4),
        owner: Some(0),
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
async fn blobs_seen_lately_are_told_from_others() {
    let (_folder, store) = fresh().await;
    for (number, seconds) in [(1, 0), (2, 10), (3, 20)] {
        store
            .remember_blobs("ecr", &name("a"), &[digest(number)], at(seconds))
            .await
            .unwrap();
    }
    store
        .remember_blobs("ecr", &name("b"), &[digest(4)], at(10))
        .await
        .unwrap();
    let all: Vec<_> = (0..1_500).map(digest).collect();
    let seen = async |since, now| {
        let seen = store.blobs_seen("ecr", &name("a"), &all, at(since), at(now)).await;
        seen.unwrap()
    };
    assert_eq!(seen(10, 20).await, BTreeSet::from([digest(2), digest(3)]));
    assert_eq!(seen(5, 15).await, BTreeSet::from([digest(2)]), "not from the future");
    let none = store.blobs_seen("acr", &name("a"), &all, at(0), at(99)).await;
    assert_eq!(none.unwrap(), BTreeSet::new());
}

#[tokio::test]
async fn refused_mounts_are_remembered_until_they_are_not() {
    let (_folder, store) = fresh().await;
    let (a, b) = (name("a"), name("b"));
    store.remember_mount_refusal("ecr", &a, &b, at(5)).await.unwrap();
    store.remember_mount_refusal("ecr", &a, &b, at(10)).await.unwrap();
    assert!(store.mount_refused("ecr", &a, &b, at(10)).await.unwrap());
    assert!(store.mount_refused("ecr", &a, &b, at(9 + 24 * 3600)).await.unwrap());
    assert!(!store.mount_refused("ecr", &a, &b, at(10 + 24 * 3600)).await.unwrap());
    assert!(!store.mount_refused("ecr", &b, &a, at(10)).await.unwrap());
    assert!(!store.mount_refused("acr", &a, &b, at(10)).await.unwrap());
}

#[tokio::test]
async fn what_was_learnt_under_a_clock_that_was_ahead_counts_for_nothing() {
    let (_folder, store) = fresh().await;
    let (a, b) = (name("a"), name("b"));
    store
        .learn("ecr", "*", "ranges", "none", "200", at(1_000), at(2_000))
        .await
        .unwrap();
    store.remember_mount_refusal("ecr", &a, &b, at(1_000)).await.unwrap();
    let known = async |now| store.capability("ecr", "*", "ranges", at(now)).await.unwrap();
    let refused = async |now| store.mount_refused("ecr", &a, &b, at(now)).await.unwrap();
    assert_eq!((known(999).await, refused(999).await), (None, false));
    assert_eq!(
        (known(1_000).await.as_deref(), refused(1_000).await),
        (Some("none"), true)
    );
    // Set right, the clock lets both be learnt anew.
    store
        .learn("ecr", "*", "ranges", "some", "206", at(10), at(20))
        .await
        .unwrap();
    store.remember_mount_refusal("ecr", &a, &b, at(10)).await.unwrap();
    assert_eq!((known(10).await.as_deref(), refused(10).await), (Some("some"), true));
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
    let line = |class: &str, name: &str, value: &str, evidence: &str, learnt, expires| Capability {
        class: class.into(),
        name: name.into(),
        value: value.into(),
        evidence: evidence.into(),
        learnt,
        expires,
    };
    let expected = [
        line("*", "habit", "keeps_bytes", "204", at(1), at(100)),
        line("big/*", "referrers", "no", "404", at(2), at(50)),
    ];
    store.learn_all("quay", &expected).await.unwrap();
    assert_eq!(store.capabilities("quay", at(49)).await.unwrap(), expected);
    assert_eq!(store.capabilities("ecr", at(49)).await.unwrap(), expected);
    assert_eq!(store.capabilities("ecr", at(50)).await.unwrap(), expected[..1]);
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
async fn a_claim_is_renewed_once_a_day() {
    const HOUR: i64 = 3600;
    let (_folder, store) = fresh().await;
    let tags = [tag("v1")];
    for (place, again, told) in [("a", 23, false), ("b", 25, true)] {
        let repository = name(place);
        for hour in [0, again] {
            let mine = store.claim_tags("ecr", &repository, &tags, "one", "harbor/web", at(hour * HOUR), at(0));
            assert_eq!(mine.await.unwrap(), BTreeMap::new());
        }
        // Whatever was not written since the first hour is void.
        let theirs = store.claim_tags("ecr", &repository, &tags, "two", "hub/web", at(again * HOUR), at(HOUR));
        assert_eq!(theirs.await.unwrap().len(), usize::from(told), "{place}");
    }
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

    assert!(store.forget_unconfirmed(at(1_000), at(6_000)).await.unwrap());
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
