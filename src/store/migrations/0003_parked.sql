-- Final failures that scheduled runs leave alone for a while: one of an image at a destination.

CREATE TABLE parked (
    registry   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    tag        TEXT    NOT NULL,
    -- registry/repository that it was to come from, and the rule that failed last.
    source     TEXT    NOT NULL,
    rule       TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    status     INTEGER,
    code       TEXT,
    message    TEXT    NOT NULL,
    attempts   INTEGER NOT NULL,
    times      INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag)
) STRICT, WITHOUT ROWID;
