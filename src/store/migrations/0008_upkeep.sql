-- What each `sync` looks for at its begin and end is found without reading all that is remembered.

CREATE INDEX runs_finished ON runs (finished_at);

-- Who has claims, each once. A row may be left of one who has none any more; there is never one missing.
CREATE TABLE claimants (
    rule       TEXT NOT NULL,
    source     TEXT NOT NULL,
    registry   TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (rule, source, registry, repository)
) STRICT, WITHOUT ROWID;
INSERT INTO claimants SELECT DISTINCT rule, source, registry, repository FROM claims;

-- When work was last done that is worth doing once a day.
CREATE TABLE upkeep (
    work    TEXT    NOT NULL PRIMARY KEY,
    done_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
