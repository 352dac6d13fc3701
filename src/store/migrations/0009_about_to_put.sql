-- Tags that are about to be put: where the answer is never heard, a later run that finds the tag so completes the audit trail.

CREATE TABLE about_to_put (
    registry        TEXT    NOT NULL,
    repository      TEXT    NOT NULL,
    tag             TEXT    NOT NULL,
    digest          TEXT    NOT NULL,
    run_id          INTEGER NOT NULL,
    rule            TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    previous_digest TEXT,
    at              INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag, run_id)
) STRICT, WITHOUT ROWID;
