-- What transship remembers across runs and crashes.
--
-- Times are milliseconds since 1970 in UTC, truths 0 or 1. STRICT: SQLite then refuses a text in a number's column.
-- No secret is ever stored here. The one thing near it is `uploads.write`: some registries sign their upload sessions,
-- and without that signature an upload cannot go on after a crash. It opens one unfinished upload and nothing else;
-- the file has mode 0600 all the same.

CREATE TABLE runs (
    -- AUTOINCREMENT: the audit trail names runs that are long deleted, so a number is never given twice.
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    rule             TEXT    NOT NULL,
    trigger          TEXT    NOT NULL,
    continues        INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    outcome          TEXT,
    started_at       INTEGER NOT NULL,
    finished_at      INTEGER,
    report           TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
) STRICT;
CREATE INDEX runs_rule ON runs (rule, id);
CREATE INDEX runs_open ON runs (id) WHERE outcome IS NULL;
CREATE INDEX runs_continues ON runs (continues) WHERE continues IS NOT NULL;

CREATE TABLE jobs (
    id                     INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id                 INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    source_registry        TEXT    NOT NULL,
    source_repository      TEXT    NOT NULL,
    reference              TEXT    NOT NULL,
    destination_registry   TEXT    NOT NULL,
    destination_repository TEXT    NOT NULL,
    digest                 TEXT,
    outcome                TEXT,
    kind                   TEXT,
    status                 INTEGER,
    code                   TEXT,
    message                TEXT,
    attempts               INTEGER NOT NULL DEFAULT 0,
    bytes_written          INTEGER NOT NULL DEFAULT 0,
    started_at             INTEGER NOT NULL,
    finished_at            INTEGER,
    next_attempt_at        INTEGER,
    -- Who executes it, until when that is promised, and how often it changed hands. One process alone never looks at
    -- the last two; they are here so that sharing the work between daemons changes no table.
    owner                  TEXT    NOT NULL,
    lease_until            INTEGER,
    fence                  INTEGER NOT NULL DEFAULT 0,
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
) STRICT;
CREATE INDEX jobs_run ON jobs (run_id, id);
CREATE INDEX jobs_open ON jobs (id) WHERE outcome IS NULL;
CREATE INDEX jobs_failed ON jobs (id) WHERE outcome = 'failed';

CREATE TABLE uploads (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    registry     TEXT    NOT NULL,
    repository   TEXT    NOT NULL,
    digest       TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    write        TEXT    NOT NULL,
    acknowledged INTEGER NOT NULL,
    opened_at    INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (registry, repository, digest)
) STRICT;

-- Hash states along an upload. The number grows with each record, so that "the last eight" means the latest made.
CREATE TABLE checkpoints (
    id        INTEGER PRIMARY KEY,
    upload_id INTEGER NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    hashed    INTEGER NOT NULL,
    state     BLOB    NOT NULL,
    UNIQUE (upload_id, hashed)
) STRICT;

CREATE TABLE blobs (
    registry   TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    seen_at    INTEGER NOT NULL,
    PRIMARY KEY (registry, digest, repository)
) STRICT, WITHOUT ROWID;

CREATE TABLE mount_refusals (
    registry        TEXT    NOT NULL,
    from_repository TEXT    NOT NULL,
    to_repository   TEXT    NOT NULL,
    until           INTEGER NOT NULL,
    PRIMARY KEY (registry, from_repository, to_repository)
) STRICT, WITHOUT ROWID;

CREATE TABLE capabilities (
    registry TEXT    NOT NULL,
    class    TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    value    TEXT    NOT NULL,
    evidence TEXT    NOT NULL,
    learnt   INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    PRIMARY KEY (registry, class, name)
) STRICT, WITHOUT ROWID;

-- Who changed what and when. Run and job are plain numbers: these rows outlive both.
CREATE TABLE audit (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              INTEGER NOT NULL,
    run_id          INTEGER,
    job_id          INTEGER,
    rule            TEXT    NOT NULL,
    action          TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    registry        TEXT    NOT NULL,
    repository      TEXT    NOT NULL,
    tag             TEXT    NOT NULL,
    digest          TEXT    NOT NULL,
    previous_digest TEXT
) STRICT;

-- Every digest that we put under a tag: what tells a tag that moved from one that somebody else wrote.
CREATE TABLE written (
    registry   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    tag        TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    rule       TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag, digest, rule)
) STRICT, WITHOUT ROWID;

CREATE TABLE verified (
    registry   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    tag        TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag)
) STRICT, WITHOUT ROWID;

-- What a policy (with the version of its algorithm) made of a source digest.
CREATE TABLE choices (
    source  TEXT    NOT NULL,
    policy  TEXT    NOT NULL,
    choice  TEXT    NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (source, policy)
) STRICT, WITHOUT ROWID;

CREATE TABLE attachment_checks (
    registry   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, subject)
) STRICT, WITHOUT ROWID;

-- Which sources want a destination tag. More than one row for a tag means that it is ambiguous.
CREATE TABLE claims (
    registry   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    tag        TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    rule       TEXT    NOT NULL,
    claimed_at INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag, source)
) STRICT, WITHOUT ROWID;
